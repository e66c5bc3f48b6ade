/** Page side and worker side connected by messages, as with a worker, and a fake WASM module. */

import { readFile } from "node:fs/promises";

import { admit } from "../build/admission.js";
import { Client } from "../build/client.js";
import { noGpu } from "../build/gpu.js";
import { Host } from "../build/host.js";
import { parseManifest } from "../build/manifest.js";
import { Session } from "../build/session.js";
import { noStore } from "../build/store.js";
import { fakeModule, PNG } from "./fake-wasm.mjs";
import { temporaryFolder, writePack } from "./pack.mjs";

/** A hardware adapter. */
export const GPU = {
  name: "a gpu",
  software: false,
  features: [],
  limits: { maxBufferSize: 2 ** 30, maxStorageBufferBindingSize: 2 ** 30, maxComputeInvocationsPerWorkgroup: 256 },
};

/**
 * A loaded model. `fakes` are the modules of the workers in start order (the last one serves for all further workers); `workers`
 * records each worker; `gpu` overrides their GPU watch.
 */
export async function start(
  t,
  {
    fakes = [fakeModule()],
    device = "auto",
    adapters = [GPU],
    store = noStore,
    cache = false,
    workers = [],
    gpu = {},
    refuses,
    draw,
    wasm,
    fetch = async (url) => new Response(await readFile(new URL(url))),
    ...hooks
  } = {},
) {
  const folder = await temporaryFolder(t);
  await writePack(folder, { vision: [1000], lm: [2000], decoder: [3000] });

  const startWorker = (kind, receive) => {
    const fake = fakes[Math.min(workers.length, fakes.length - 1)];
    const worker = { kind, alive: true, lose: null, destroyed: 0, ...fake };
    workers.push(worker);
    const deliver = (to) => (message) => {
      const sent = structuredClone(message);
      setImmediate(() => worker.alive && to(sent));
    };
    const watchGpu = (onError) => {
      worker.lose = (code = "device-lost") => onError({ code, message: `${code}!` });
      return { ...noGpu, ...gpu, destroy: () => (worker.destroyed++, worker.lose()) };
    };
    const env = {
      module: fake.module,
      wasm: new Uint8Array(),
      fetch,
      openStore: async () => (typeof store === "function" ? store() : store),
      watchGpu,
    };
    const host = new Host(env, deliver(receive));
    return { post: deliver((message) => host.receive(message)), terminate: () => (worker.alive = false) };
  };

  const text = await readFile(new URL("emu.json", `file://${folder}/`), "utf8");
  const look = async (choice) => {
    const machine = {
      adapter: adapters[Math.min(workers.length, adapters.length - 1)],
      simd: true,
      memory: null,
      storage: null,
    };
    return {
      pack: { url: `file://${folder}/` },
      manifest: text,
      support: admit(parseManifest(text), machine, choice, new Map()),
      refuses,
    };
  };
  const client = new Client(await look(device), {
    components: ["vision", "lm"],
    cache,
    startWorker,
    device,
    admit: look,
    draw,
    wasm,
  });
  await client.open(hooks);
  t.after(() => client.dispose());
  return { emu: new (class extends Session {})(client), client, workers };
}

/** The outcome of a promise: its value, or the name or code of its error. */
export const outcome = (promise) =>
  promise.then(
    (value) => value,
    (error) => (error.code && error.name === "EmuError" ? error.code : error.name),
  );

/** All items of a stream. */
export async function collect(events) {
  const all = [];
  for await (const event of events) all.push(event);
  return all;
}

/** The whole text of a stream. */
export const textOf = (events) => events.map((event) => (event.type === "text" ? event.text : "")).join("");

/** A conversation with one question about a picture. */
export const ask = (text = "hello") => [{ role: "user", content: [PNG, text] }];
