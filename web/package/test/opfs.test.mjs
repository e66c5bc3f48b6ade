/** The origin private file system, with an in-memory fake that has its rules. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { deleteCache, listCache, openStorage } from "../build/storage.js";
import { cachedBytes, isFull, PACK_FILE, storedName } from "../build/store.js";
import { Folder, fakeOpfs } from "./fake-opfs.mjs";
import { temporaryFolder, writePack } from "./pack.mjs";

const URL_A = "https://a.b/model/";
const bytes = (...values) => Uint8Array.from(values);

test("a partial file becomes whole by its commit, and only then", async (t) => {
  fakeOpfs(t);
  assert.equal(await openStorage(URL_A, false), null, "looking creates nothing");
  const store = await openStorage(URL_A, true);
  const partial = await store.partial("x");
  partial.write(bytes(1, 2, 3), 0);
  partial.write(bytes(4), 3);
  assert.equal(await store.open("x"), null);
  assert.deepEqual([...(await store.sizes())], [["x.part", 4]]);
  await partial.commit();
  partial.close();
  const whole = await store.open("x");
  const into = new Uint8Array(3);
  assert.deepEqual([whole.size, whole.read(into, 1), [...into]], [4, 3, [2, 3, 4]]);
  whole.close();
  assert.deepEqual([...(await store.sizes())], [["x", 4]]);
  await store.remove("x");
  await store.remove("x");
  assert.equal((await store.sizes()).size, 0);
});

test("a partial file is continued by the next session", async (t) => {
  fakeOpfs(t);
  const first = await (await openStorage(URL_A, true)).partial("x");
  first.write(bytes(1, 2, 3), 0);
  first.close();
  const second = await (await openStorage(URL_A, true)).partial("x");
  assert.equal(second.size, 3);
  second.truncate(2);
  assert.equal(second.size, 2);
});

test("a text is replaced in one step", async (t) => {
  fakeOpfs(t);
  const store = await openStorage(URL_A, true);
  assert.equal(await store.readText("note"), null);
  await store.writeText("note", "a long first text");
  await store.writeText("note", "second");
  assert.equal(await store.readText("note"), "second");
  assert.deepEqual([...(await store.sizes()).keys()], ["note"]);
});

test("what does not fit is an error that says so, also where a browser writes a part of it in silence", async (t) => {
  fakeOpfs(t);
  const partial = await (await openStorage(URL_A, true)).partial("x");
  Folder.quota = 2;
  assert.throws(() => partial.write(bytes(1, 2, 3), 0), isFull);
});

test("the packs of an origin are listed and forgotten", async (t) => {
  fakeOpfs(t);
  const folder = await temporaryFolder(t);
  const { manifest, files } = await writePack(folder, { vision: [10], lm: [20] });
  const store = await openStorage(URL_A, true);
  await store.writeText(PACK_FILE, JSON.stringify({ url: URL_A, manifest: JSON.stringify(manifest) }));
  for (const entry of [...manifest.shards, ...manifest.files]) {
    assert.equal((await listCache())[0].complete, false);
    const partial = await store.partial(storedName(entry));
    partial.write(files.get(entry.file), 0);
    await partial.commit();
  }
  const [model, ...others] = await listCache();
  assert.deepEqual([model.url, model.name, model.complete, others.length], [URL_A, "test", true, 0]);
  assert.ok(model.bytes > 30);
  assert.deepEqual([...(await cachedBytes(store, manifest.shards)).values()], [10, 20]);

  // A folder that is not a valid pack is neither listed nor an obstacle.
  await (await openStorage("https://a.b/other/", true)).writeText(PACK_FILE, "{");
  assert.equal((await listCache()).length, 1);

  const open = await store.partial("busy");
  await assert.rejects(deleteCache(URL_A), { name: "EmuError", code: "cache" });
  open.close();
  await deleteCache(URL_A);
  await deleteCache(URL_A);
  assert.deepEqual(await listCache(), []);
});

test("two tabs work on a file one after the other", async (t) => {
  fakeOpfs(t);
  const [a, b] = [await openStorage(URL_A, true), await openStorage(URL_A, true)];
  const { signal } = new AbortController();
  const order = [];
  const work = (name) => async () => {
    order.push(`${name} begins`);
    await new Promise((done) => setTimeout(done, 5));
    order.push(`${name} ends`);
  };
  await Promise.all([a.exclusive("x", signal, work("a")), b.exclusive("x", signal, work("b"))]);
  assert.deepEqual(order, ["a begins", "a ends", "b begins", "b ends"]);
  await assert.rejects(a.exclusive("x", AbortSignal.abort(), work("c")), { name: "AbortError" });
});
