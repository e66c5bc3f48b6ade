/**
 * The same API in Node, on the CPU, in this process: for tests, scripts and servers. A step blocks the event loop while it is
 * computed; steps are short for small models only.
 */

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { Readable } from "node:stream";

import { hasSimd } from "./adapter.js";
import { admit, refusal, requireSupport } from "./admission.js";
import { type Admission, Client } from "./client.js";
import { folderStore } from "./folder.js";
import { noGpu } from "./gpu.js";
import { Host } from "./host.js";
import { fetchPack, packAddress } from "./pack.js";
import type { FromWorker, Link } from "./protocol.js";
import { Session, toProgress } from "./session.js";
import { cachedBytes, type Store } from "./store.js";
import type { LoadOptions, PackLocation, Support } from "./types.js";
import type { WasmModule } from "./wasm.js";

export { EmuError, type EmuErrorCode } from "./errors.js";
export { VERSION } from "./version.js";
export type * from "./types.js";

export interface NodeLoadOptions extends Omit<LoadOptions, "device" | "cache" | "worker" | "wasm"> {
  device?: "auto" | "cpu";
  /** Folder for verified shards. Without one nothing is stored. */
  cache?: string;
  /** A replacement for the WASM module, for tests. */
  module?: WasmModule;
}

export class Emu extends Session {
  private constructor(client: Client) {
    super(client);
  }

  /** As in a page. `pack` may also be a `file:` URL or a path. */
  static async checkSupport(
    pack: PackLocation,
    options: Pick<NodeLoadOptions, "signal" | "cache" | "expect"> = {},
  ): Promise<Support> {
    return (await look(pack, options)).support;
  }

  /** As in a page, on the CPU. `pack` may also be a `file:` URL or a path. */
  static async load(pack: PackLocation, options: NodeLoadOptions = {}): Promise<Emu> {
    const { signal, onProgress, components = ["vision", "lm"], cache, module, expect } = options;
    const admission = await look(pack, options);
    requireSupport(admission.support, "cpu");
    const client = new Client(admission, {
      components,
      cache: cache !== undefined,
      startWorker: (_device, receive) => startHost(receive, cache, module),
      device: "cpu",
      admit: () => look(pack, { cache, expect }),
    });
    const onEvent = (event: Parameters<typeof toProgress>[0]) => {
      const progress = toProgress(event);
      if (progress) onProgress?.(progress);
    };
    await client.open({ signal, onEvent });
    return new Emu(client);
  }
}

async function look(
  given: PackLocation,
  { signal, cache, expect }: Pick<NodeLoadOptions, "signal" | "cache" | "expect">,
): Promise<Admission> {
  const address = packAddress(given, pathToFileURL(`${process.cwd()}/`).href);
  const store: Store | null = cache === undefined ? null : await folderStore(cache, address.url);
  const { text, manifest } = await fetchPack(address, store, fetchAny, signal);
  const machine = { adapter: null, simd: hasSimd(), memory: null, storage: null };
  const cached = await cachedBytes(store, manifest.shards);
  const support = admit(manifest, machine, "cpu", cached, expect);
  const refuses: Admission["refuses"] = (task, expected) => refusal(manifest, support, task, expected);
  return { pack: address, manifest: text, support, refuses };
}

let instances = 0;

/** Runs a host in this process, with the same messages as a worker. Each has its own module instance, since a panic ends one. */
function startHost(
  receive: (message: FromWorker) => void,
  cache: string | undefined,
  module: WasmModule | undefined,
): Link {
  let ended = false;
  const starting = (async () => {
    const glue = new URL("../wasm/cpu/emu_web.js", import.meta.url);
    return new Host(
      {
        module: module ?? ((await import(`${glue.href}?${instances++}`)) as WasmModule),
        wasm: module ? new Uint8Array() : await readFile(new URL("../wasm/cpu/emu_web_bg.wasm", import.meta.url)),
        fetch: fetchAny,
        openStore: (url) => folderStore(cache!, url),
        watchGpu: () => noGpu,
      },
      (message, transfer = []) => {
        const sent = structuredClone(message, { transfer });
        setImmediate(() => ended || receive(sent));
      },
    );
  })();
  starting.catch((error) => {
    const message = `The WASM module could not be read (${String(error)}). Check that the package is installed whole.`;
    receive({ type: "fatal", error: { code: "worker", message } });
  });
  return {
    post: (message) => {
      const sent = structuredClone(message);
      void starting.then((host) => ended || host.receive(sent));
    },
    terminate: () => {
      ended = true;
    },
  };
}

/** `fetch` that also reads `file:` URLs. */
const fetchAny: typeof fetch = async (input, init) => {
  const url = new URL(String(input));
  if (url.protocol !== "file:") return fetch(input, init);
  const { size } = await stat(url).catch(() => ({ size: -1 }));
  if (size < 0) return new Response(null, { status: 404 });
  const start = Number(/^bytes=(\d+)-$/.exec(new Headers(init?.headers).get("Range") ?? "")?.[1] ?? 0);
  if (start > 0 && start >= size) return new Response(null, { status: 416 });
  const body = Readable.toWeb(createReadStream(url, { start })) as ReadableStream<Uint8Array>;
  return new Response(body, { status: start > 0 ? 206 : 200 });
};
