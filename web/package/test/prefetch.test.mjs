/** Prefetching into the cache of a page, without a worker, and the Cache API where the file system is refused. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { Emu } from "../build/emu.js";
import { obtain } from "../build/download.js";
import { prefetch } from "../build/prefetch.js";
import { deleteCache, listCache, openStorage, persist } from "../build/storage.js";
import { cachedBytes, CHECKPOINT, isFull, PACK_FILE, storedName } from "../build/store.js";
import { openStream } from "../build/streamfile.js";
import { serveWithFaults } from "../../server/faults.mjs";
import { fakeCaches, fakeOpfs, Folder } from "./fake-opfs.mjs";
import { MIB, temporaryFolder, writePack } from "./pack.mjs";

const sizes = { vision: [13 * MIB + 123], lm: [5 * MIB, 300_000], decoder: [1000] };

async function setUp(t, opfs = {}) {
  const top = fakeOpfs(t, { streams: true, ...opfs });
  const folder = await temporaryFolder(t);
  const { manifest, files } = await writePack(folder, sizes);
  const server = await serveWithFaults([{ prefix: "/", folder }]);
  t.after(() => server.close());
  const cached = async () => [...(await cachedBytes(await openStorage(server.url, false), manifest.shards)).values()];
  return { top, server, manifest, files, cached, fetched: () => server.log.filter(({ path }) => path.endsWith(".safetensors")) };
}

/** Compares the stored bytes of a file with the right ones; without `openFile` as a dedicated worker reads them. */
async function stored(url, entry, files, openFile) {
  const store = await openStorage(url, true, openFile);
  const file = await store.open(storedName(entry));
  const bytes = new Uint8Array(entry.bytes);
  assert.equal(file.size, entry.bytes);
  for (let at = 0; at < bytes.length; ) at += await file.read(bytes.subarray(at), at);
  await file.close();
  assert.equal(Buffer.compare(Buffer.from(bytes), files.get(entry.file)), 0);
}

test("a pack is downloaded into the cache, verified, with progress; the second time nothing is fetched", async (t) => {
  const { server, manifest, cached, fetched } = await setUp(t);
  const told = [];
  await Emu.prefetch(server.url, { onProgress: (progress) => told.push(progress) });
  assert.deepEqual(await cached(), [13 * MIB + 123, 5 * MIB, 300_000, 0], "the decoder was not asked for");
  assert.ok(told.every(({ phase }) => phase === "download"));
  const total = 18 * MIB + 123 + 300_000;
  assert.deepEqual([told.at(-1).loadedAll, told.at(-1).totalAll], [total, total]);
  assert.equal(fetched().length, 3);
  assert.ok(Folder.copied <= total, `${Folder.copied} bytes were copied to append to files`);

  await prefetch(server.url);
  assert.equal(fetched().length, 3);
  await prefetch(server.url, { components: ["decoder"] });
  assert.equal(fetched().length, 4);
  const [model] = await listCache();
  assert.deepEqual([model.url, model.complete], [server.url, true]);
  await Emu.cache.delete(server.url);
  assert.deepEqual(await listCache(), []);
  assert.equal(manifest.shards.length, 4);
});

test("what a page stored, a worker reads", async (t) => {
  const { server, manifest, files, top } = await setUp(t);
  await prefetch(server.url);
  // A worker's handles of the same files have access handles.
  for (const folder of (await top.getDirectoryHandle("emu-webgpu")).files.values())
    for (const handle of folder.files.values()) delete handle.createSyncAccessHandle;
  for (const entry of manifest.shards.slice(0, 3)) await stored(server.url, entry, files);
});

test("an abort keeps what was fetched, and the next time resumes there", async (t) => {
  const { server, cached, fetched } = await setUp(t);
  const stop = new AbortController();
  server.faults.push({ match: "vision", cutAfter: 12 * MIB, times: 1 }, { match: "vision", delay: 60_000, times: 1 }, { match: "lm", delay: 60_000, times: 2 });
  // The second request for the file waits: everything up to the cut has arrived. Progress events are too rare to tell.
  const watch = setInterval(() => fetched().filter(({ path }) => path.includes("vision")).length > 1 && stop.abort(), 10);
  t.after(() => clearInterval(watch));
  await assert.rejects(prefetch(server.url, { signal: stop.signal }), { name: "AbortError" });
  const [vision] = await cached();
  assert.ok(vision >= 2 * CHECKPOINT && vision < 13 * MIB, `${vision} bytes were kept`);
  await assert.rejects(prefetch(server.url, { signal: AbortSignal.abort() }), { name: "AbortError" });

  server.faults.length = 0;
  const before = fetched().length;
  await prefetch(server.url);
  const resumed = fetched().slice(before).find(({ path }) => path.includes("vision"));
  assert.equal(resumed.from, vision);
  assert.deepEqual(await cached(), [13 * MIB + 123, 5 * MIB, 300_000, 0]);
});

test("a damaged download is not kept; a damaged file in the cache is fetched again", async (t) => {
  const { server, manifest, files, cached, top, fetched } = await setUp(t);
  server.faults.push({ match: "lm-00002", flip: 1000 });
  await assert.rejects(prefetch(server.url), { code: "wrong-hash" });
  assert.equal((await cached())[2], 0);
  server.faults.length = 0;
  await prefetch(server.url);
  const [folder] = (await top.getDirectoryHandle("emu-webgpu")).files.values();
  folder.files.get(storedName(manifest.shards[1])).bytes[5] ^= 1;
  const before = fetched().length;
  await prefetch(server.url);
  assert.equal(fetched().length, before + 1);
  await stored(server.url, manifest.shards[1], files, openStream);
});

test("what cannot be kept is an error, since keeping is all there is to do", async (t) => {
  const { server } = await setUp(t);
  Folder.quota = 3 * MIB;
  await assert.rejects(prefetch(server.url), { name: "EmuError", code: "cache", message: /storage is full\. Delete/ });
  await assert.rejects(prefetch(`${server.url}nowhere/`), { code: "not-found" });
  await t.test("without storage", async (t) => {
    fakeOpfs(t, { refused: true });
    await assert.rejects(prefetch(server.url), { code: "cache", message: /cannot be used \(SecurityError\)/ });
  });
});

test("persistence is asked for, and a refusal is a warning", async (t) => {
  let asked = 0;
  let answer = async () => (asked++, true);
  const { server } = await setUp(t, { persist: () => answer() });
  const warnings = [];
  const onProgress = ({ phase, code }) => phase === "warning" && warnings.push(code);
  await prefetch(server.url, { components: ["decoder"], onProgress });
  assert.equal(asked, 0);
  await prefetch(server.url, { components: ["decoder"], persist: true, onProgress });
  assert.deepEqual([asked, warnings], [1, []]);
  for (const refuse of [async () => false, () => Promise.reject(new TypeError("no origin"))]) {
    answer = refuse;
    await prefetch(server.url, { components: ["decoder"], persist: true, onProgress });
  }
  assert.deepEqual(warnings, ["not-persistent", "not-persistent"]);
  delete navigator.storage.persist;
  await persist(onProgress);
  assert.equal(warnings.length, 3);
});

test("where the file system is refused, packs are stored in the Cache API", async (t) => {
  const caches = fakeCaches(t);
  const { server, manifest, files, cached, fetched } = await setUp(t, { refused: true });
  assert.equal(await openStorage(server.url, false), null, "looking creates nothing");
  assert.equal(caches.size, 0);
  await prefetch(server.url, { components: ["vision", "lm", "decoder"] });
  assert.deepEqual(await cached(), [13 * MIB + 123, 5 * MIB, 300_000, 1000]);
  for (const entry of manifest.shards) await stored(server.url, entry, files);
  const [model, ...others] = await listCache();
  assert.deepEqual([model.url, model.name, model.complete, others.length], [server.url, "test", true, 0]);
  assert.ok(model.bytes > 18 * MIB);
  const before = fetched().length;
  await prefetch(server.url);
  assert.equal(fetched().length, before);

  // The same store as a worker's loader uses it.
  const store = await openStorage(server.url, true);
  const newHasher = () => {
    const hash = createHash("sha256");
    return { update: (bytes) => hash.update(bytes), hex: () => hash.copy().digest("hex"), free: () => {} };
  };
  const source = { pack: { url: server.url }, store, fetch, newHasher, onStoreFailure: assert.fail, backoff: 1 };
  const bytes = await obtain(source, manifest.shards[0], new AbortController().signal, () => {});
  assert.equal(Buffer.compare(Buffer.from(bytes), files.get(manifest.shards[0].file)), 0);
  assert.equal(fetched().length, before);

  await store.remove(storedName(manifest.shards[3]));
  assert.equal((await listCache())[0].complete, false);
  assert.equal(await store.open("nothing"), null);
  assert.equal(await store.readText("nothing"), null);
  assert.match(await store.readText(PACK_FILE), /^\{"url":/);
  caches.set("of the page", await globalThis.caches.open("x"));
  await deleteCache(server.url);
  assert.deepEqual(await listCache(), []);
  assert.ok(caches.has("of the page"));
});

test("a full Cache API says so", async (t) => {
  fakeCaches(t);
  fakeOpfs(t, { refused: true });
  const store = await openStorage("https://a.b/model/", true);
  Folder.quota = 2;
  const partial = await store.partial("x");
  await partial.write(Uint8Array.of(1, 2, 3), 0);
  await assert.rejects(partial.commit(), isFull);
  assert.deepEqual([...(await store.sizes())], []);
});
