/** Loading a pack with a fake WASM module in Node: what is fetched, when, what is stored, and what is reported. */

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { Emu } from "../build/node.js";
import { Loader } from "../build/loader.js";
import { noStore } from "../build/store.js";
import { sentTwice, serveWithFaults } from "../../server/faults.mjs";
import { fakeModule, play, PNG } from "./fake-wasm.mjs";
import { MIB, SHARDS, temporaryFolder, writePack } from "./pack.mjs";

async function setUp(t, shards = SHARDS) {
  const folder = await temporaryFolder(t);
  const { manifest } = await writePack(folder, shards);
  const server = await serveWithFaults([{ prefix: "/", folder }]);
  t.after(() => server.close());
  const cache = await temporaryFolder(t);
  const load = async (options = {}, fake = fakeModule()) => {
    const progress = [];
    const emu = await Emu.load(server.url, {
      cache,
      module: fake.module,
      onProgress: (event) => progress.push(event),
      ...options,
    });
    t.after(() => emu.dispose());
    return { emu, progress, ...fake };
  };
  const fetched = () =>
    server.log
      .map(({ path }) => path.slice(1))
      .filter((path) => path.endsWith(".safetensors"))
      .sort();
  return { folder, manifest, server, cache, load, fetched };
}

const LM = ["lm-00001-of-00002.safetensors", "lm-00002-of-00002.safetensors"];
const VISION = ["vision-00001-of-00001.safetensors"];
const DECODER = ["decoder-00001-of-00001.safetensors"];

test("checking support fetches emu.json and nothing else", async (t) => {
  const { server, cache } = await setUp(t);
  const support = await Emu.checkSupport(server.url, { cache });
  assert.equal(support.supported, true);
  assert.deepEqual(
    server.log.map(({ path }) => path),
    ["/emu.json"],
  );
});

test("captioning never fetches the decoder; drawing fetches it once", async (t) => {
  const { load, fetched } = await setUp(t);
  const { emu, seen } = await load();
  assert.deepEqual(fetched(), [...LM, ...VISION]);
  assert.match(await emu.caption(PNG, { seed: 1 }), /^a picture of seed 1/);
  assert.deepEqual(fetched(), [...LM, ...VISION]);
  await emu.generateImage("a cat");
  await emu.generateImage("a dog");
  assert.deepEqual(fetched(), [...DECODER, ...LM, ...VISION]);
  assert.deepEqual([...seen.finished].sort(), ["decoder", "lm", "vision"]);
  assert.equal(seen.hashers, 0, "every hasher is freed");
});

test("only what a call needs is loaded, when it is first needed", async (t) => {
  const { load, fetched } = await setUp(t);
  const { emu } = await load({ components: [] });
  assert.deepEqual(fetched(), []);
  assert.equal((await emu.embed(PNG)).length, 2);
  assert.deepEqual(fetched(), VISION);
  // The model needs the decoder in the middle of an answer.
  for await (const event of emu.chat([{ role: "user", content: "hello" }], { images: false })) void event;
  assert.deepEqual(fetched(), [...LM, ...VISION]);
  for await (const event of emu.chat([{ role: "user", content: "draw" }])) void event;
  assert.deepEqual(fetched(), [...DECODER, ...LM, ...VISION]);
});

test("progress counts bytes by component and together", async (t) => {
  const { load, manifest } = await setUp(t);
  const { progress } = await load();
  const total = manifest.components.vision.bytes + manifest.components.lm.bytes;
  for (const component of ["vision", "lm"]) {
    const downloads = progress.filter((event) => event.phase === "download" && event.component === component);
    const last = downloads.at(-1);
    assert.deepEqual([last.loaded, last.fetched, last.total], Array(3).fill(manifest.components[component].bytes));
    for (let i = 1; i < downloads.length; i++) assert.ok(downloads[i].loaded >= downloads[i - 1].loaded);
    const uploaded = progress.filter((event) => event.phase === "upload" && event.component === component).at(-1);
    assert.equal(uploaded.loaded, uploaded.total);
  }
  assert.ok(progress.some((event) => event.loadedAll === total && event.totalAll === total));
  assert.deepEqual(
    progress.filter(({ phase }) => phase === "compile").map(({ done }) => done),
    [1, 2, 3],
  );
});

test("a second visit fetches the manifest only, and works offline", async (t) => {
  const { load, server, fetched } = await setUp(t);
  await (await load()).emu.dispose();
  const before = fetched().length;
  const { progress } = await load();
  assert.equal(fetched().length, before);
  assert.ok(progress.filter(({ phase }) => phase === "download").every(({ fetched }) => fetched === 0));
  await server.close();
  const { emu } = await load();
  assert.match(await emu.caption(PNG, { seed: 2 }), /seed 2/);
  await assert.rejects(emu.generateImage("what was never fetched"), { code: "fetch" });
  assert.match(await emu.caption(PNG, { seed: 3 }), /seed 3/, "the next call works");
});

test("offline without a cache is an error that says so", async (t) => {
  const { load, server, cache } = await setUp(t);
  await server.close();
  await assert.rejects(load(), { code: "fetch", message: /emu\.json could not be fetched: the connection failed/ });
  await assert.rejects(Emu.checkSupport(server.url, { cache }), { code: "fetch" });
});

test("a server that fails where the manifest is kept is got along without", async (t) => {
  const { load, server } = await setUp(t);
  await (await load()).emu.dispose();
  server.faults.push({ match: "emu.json", status: 503 });
  await load();
  server.faults[0].status = 404;
  await assert.rejects(load(), { code: "not-found", message: /there is nothing at .+emu\.json\. Check/ });
});

test("what went wrong with a shard is the error of the load, and the next load works", async (t) => {
  const { load, server } = await setUp(t);
  server.faults.push({ match: LM[1], flip: 1000 });
  const fake = fakeModule();
  await assert.rejects(load({}, fake), { name: "EmuError", code: "wrong-hash", message: /lm-00002/ });
  assert.ok(fake.seen.unloaded.includes("lm"), "nothing is half loaded");
  server.faults[0] = { match: LM[1], status: 404 };
  await assert.rejects(load(), { code: "not-found" });
  server.faults.length = 0;
  await load();
});

test("at most two shards are in memory at once", async () => {
  const shards = Array.from({ length: 9 }, (_, i) => ({ file: `s${i}`, bytes: 10, sha256: "00" }));
  const manifest = { components: { vision: { shards: shards.map(({ file }) => file), bytes: 90 } }, shards, files: [] };
  let inMemory = 0;
  let most = 0;
  const fetch = async () => {
    most = Math.max(most, ++inMemory);
    await new Promise((resolve) => setTimeout(resolve, 5));
    return new Response(new Uint8Array(10));
  };
  const newHasher = () => ({ update: () => {}, hex: () => "00", free: () => {} });
  const loader = new Loader(manifest, {
    pack: { url: "http://x/" },
    store: noStore,
    fetch,
    newHasher,
    onStoreFailure: () => {},
  });
  const order = [];
  const engine = {
    loaded: () => false,
    unload: () => {},
    finish: async () => order.push("finish"),
    shard: (file) => order.push(file) && inMemory--,
  };
  await loader.load(["vision"], engine, new AbortController().signal, () => {});
  assert.equal(most, 2);
  assert.equal(order.length, 10);
  assert.equal(order.at(-1), "finish");
});

test("two loads of one pack at the same time fetch it once", async (t) => {
  const { load, fetched } = await setUp(t);
  await Promise.all([load(), load()]);
  assert.deepEqual(fetched(), [...LM, ...VISION]);
});

test("a load that is aborted is resumed: no byte comes twice beyond 4 MiB per open shard", async (t) => {
  const { load, server } = await setUp(t);
  server.faults.push({ match: ".safetensors", rate: 16 * MIB, times: 2 });
  const stop = new AbortController();
  const watch = setInterval(() => server.log.some(({ to }) => to > 6 * MIB) && stop.abort(), 5);
  await assert.rejects(load({ signal: stop.signal }), { name: "AbortError" });
  clearInterval(watch);
  await load();
  for (const file of [...VISION, ...LM]) assert.ok(sentTwice(server.log, file) <= 4 * MIB, file);
});

test("files of an older version of a pack are dropped from the cache", async (t) => {
  const { load, folder, cache } = await setUp(t);
  await (await load()).emu.dispose();
  const [pack] = await readdir(cache);
  const before = await readdir(join(cache, pack));
  await writePack(folder, SHARDS, "second");
  await (await load()).emu.dispose();
  const after = await readdir(join(cache, pack));
  assert.equal(after.length, before.length);
  assert.equal(
    after
      .filter((name) => before.includes(name))
      .sort()
      .join(),
    "pack.json," + after.find((name) => name.startsWith("tokenizer")),
  );
});

test("an address is understood in each of its forms", async (t) => {
  const { server, folder, cache } = await setUp(t);
  for (const url of [server.url, `${server.url}emu.json`, new URL(server.url), folder, `file://${folder}/`]) {
    assert.equal((await Emu.checkSupport(url, { cache })).model.name, "test", String(url));
  }
  await assert.rejects(Emu.checkSupport("http://"), { code: "bad-request" });
});

test("a pack whose files were renamed is loaded file by file", async (t) => {
  const { server, manifest, load, cache } = await setUp(t);
  const names = ["emu.json", "tokenizer.json", ...manifest.shards.map(({ file }) => file)];
  // As a bundler might rename the files; this server accepts any query.
  const pack = {
    url: "npm:test",
    files: Object.fromEntries(names.map((name) => [name, `${server.url}${name}?hashed`])),
  };
  const fake = fakeModule();
  const emu = await Emu.load(pack, { cache, module: fake.module });
  t.after(() => emu.dispose());
  assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
  const { "tokenizer.json": _, ...rest } = pack.files;
  await assert.rejects(Emu.load({ url: "npm:other", files: rest }, { module: fakeModule().module }), {
    code: "not-found",
    message: /npm:other has no address for tokenizer\.json/,
  });
});

test("an address whose query changes is the same pack, and its query is not kept", async (t) => {
  const { server, cache, manifest, fetched } = await setUp(t);
  const at = (token) => `${server.url}?token=${token}`;
  await (await Emu.load(at(1), { cache, module: fakeModule().module })).dispose();
  assert.equal(fetched().length, 3);
  const { plan } = await Emu.checkSupport(at(2), { cache });
  const { bytes } = manifest.components.vision;
  assert.deepEqual(plan[0], { component: "vision", download: bytes, resident: plan[0].resident, cached: bytes });
  await (await Emu.load(at(3), { cache, module: fakeModule().module })).dispose();
  assert.equal(fetched().length, 3, "nothing is fetched again");
  const [folder, ...more] = await readdir(cache);
  assert.deepEqual(more, []);
  const { url } = JSON.parse(await readFile(join(cache, folder, "pack.json"), "utf8"));
  assert.equal(url, server.url);
});

test("a web page in the place of emu.json is called so", async (t) => {
  const { server, load } = await setUp(t);
  server.faults.push({ match: "emu.json", page: true });
  await assert.rejects(load(), { code: "not-found", message: /emu\.json gives a web page\. Check the pack's address\./ });
  const files = { "emu.json": `${server.url}bundle/emu.json?v=1` };
  await assert.rejects(Emu.load({ url: "npm:test", files }, { module: fakeModule().module }), {
    code: "not-found",
    message: /bundle\/emu\.json gives a web page\. Bundlers .+ leave the pack out: copy its folder/,
  });
  const pack = {
    url: "npm:test",
    get files() {
      return { "emu.json": new URL("x", undefined).href };
    },
  };
  await assert.rejects(Emu.load(pack), { code: "not-found", message: /npm:test has no addresses/ });
});

test("where a load fails, every component that is not whole is dropped, also behind one that fails to be", async () => {
  const shards = ["vision", "lm", "decoder"].map((file) => ({ file, bytes: 10, sha256: "00" }));
  const components = Object.fromEntries(shards.map(({ file }) => [file, { shards: [file], bytes: 10 }]));
  const loader = new Loader(
    { components, shards, files: [] },
    {
      pack: { url: "http://x/" },
      store: noStore,
      fetch: async () => new Response(new Uint8Array(10)),
      newHasher: () => ({ update: () => {}, hex: () => "00", free: () => {} }),
      onStoreFailure: () => {},
    },
  );
  const dropped = [];
  const engine = {
    loaded: () => false,
    unload: (component) => {
      dropped.push(component);
      if (component === "vision") throw new Error("gone");
    },
    finish: async () => {},
    shard: () => {
      throw { code: "bad-tensor", message: "It is wrong." };
    },
  };
  const load = loader.load(["vision", "lm", "decoder"], engine, new AbortController().signal, () => {});
  await assert.rejects(load, { code: "bad-tensor" });
  assert.deepEqual(dropped, ["vision", "lm", "decoder"]);
});

test("of two models in one process, the one that panics is told, and the other goes on", async (t) => {
  const { load } = await setUp(t);
  /** A module whose runs wait, and which panics when it is told to, as Rust does: what was awaited never resolves. */
  const panicking = () => {
    let tell;
    const fake = fakeModule({
      module: { onPanic: (listener) => (tell = listener) },
      run: async (request, pictures, hear, engine) => {
        if (request.seed !== 1) return play(request, pictures, hear, engine);
        tell("panicked at x.rs:1");
        await new Promise(() => {});
      },
    });
    return fake;
  };
  const first = (await load({}, panicking())).emu;
  const second = (await load({}, panicking())).emu;
  const working = second.caption(PNG, { seed: 2 });
  await assert.rejects(first.caption(PNG, { seed: 1 }), { code: "crashed", message: /panicked at x\.rs:1/ });
  assert.match(await working, /seed 2/);
  await assert.rejects(second.caption(PNG, { seed: 1 }), { code: "crashed" });
  assert.match(await first.caption(PNG, { seed: 3 }), /seed 3/);
});
