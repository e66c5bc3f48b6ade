import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { obtain } from "../build/download.js";
import { folderStore } from "../build/folder.js";
import { CHECKPOINT, noStore, storedName } from "../build/store.js";
import { sentTwice, serveWithFaults } from "../../server/faults.mjs";
import { MIB, temporaryFolder, writePack } from "./pack.mjs";

/** A pack, a server for it, and a function that obtains its first shard. */
async function setUp(t, { keep = true, sparse = false } = {}) {
  const folder = await temporaryFolder(t);
  const { manifest, files } = await writePack(folder);
  const server = await serveWithFaults([{ prefix: "/", folder }]);
  t.after(() => server.close());
  const entry = manifest.shards[0];
  if (sparse) {
    // Compresses to half its size.
    const bytes = files.get(entry.file);
    for (let at = 0; at < bytes.length; at += 2000) bytes.fill(0, at, at + 1000);
    entry.sha256 = createHash("sha256").update(bytes).digest("hex");
    await writeFile(join(folder, entry.file), bytes);
  }
  const cache = await temporaryFolder(t);
  const failures = [];
  const source = {
    pack: { url: server.url },
    store: keep ? await folderStore(cache, server.url) : noStore,
    fetch,
    newHasher: () => {
      const hash = createHash("sha256");
      return { update: (bytes) => hash.update(bytes), hex: () => hash.copy().digest("hex"), free: () => {} };
    },
    onStoreFailure: (error) => failures.push(error),
    backoff: 1,
    // A busy machine must not count as a dead connection.
    patience: 30_000,
  };
  const tally = { loaded: 0, fetched: 0 };
  const meter = (loaded, fetched) => {
    tally.loaded += loaded;
    tally.fetched += fetched;
  };
  const get = (signal = new AbortController().signal, which = entry) => obtain(source, which, signal, meter);
  const kept = async () => readdir(source.store.folder).then((names) => names.sort());
  return {
    server,
    entry,
    source,
    get,
    tally,
    failures,
    kept,
    right: files.get(entry.file),
    path: join(source.store.folder ?? "", storedName(entry)),
  };
}

/** Fails unless all bytes are equal. */
function assertBytes(found, right) {
  assert.equal(found.length, right.length);
  assert.equal(Buffer.compare(Buffer.from(found.buffer, found.byteOffset, found.length), right), 0, "the bytes differ");
}

test("the comparison of bytes fails on a wrong bit and on a missing byte", () => {
  const right = Buffer.from([1, 2, 3]);
  assertBytes(new Uint8Array([1, 2, 3]), right);
  assert.throws(() => assertBytes(new Uint8Array([1, 2, 2]), right), /differ/);
  assert.throws(() => assertBytes(new Uint8Array([1, 2]), right));
});

test("a file is fetched once, kept, and read from the store after that", async (t) => {
  const { get, right, server, entry, kept, tally } = await setUp(t);
  assertBytes(await get(), right);
  assert.deepEqual(await kept(), [storedName(entry)]);
  assert.deepEqual(tally, { loaded: entry.bytes, fetched: entry.bytes });
  assertBytes(await get(), right);
  assert.equal(server.log.length, 1);
  assert.deepEqual(tally, { loaded: 2 * entry.bytes, fetched: entry.bytes });
});

test("without a store everything works and nothing is kept", async (t) => {
  const { get, right, server } = await setUp(t, { keep: false });
  assertBytes(await get(), right);
  assertBytes(await get(), right);
  assert.equal(server.log.length, 2);
});

test("a flipped bit on the way is found, and healed by fetching again", async (t) => {
  const { get, right, server, entry, tally } = await setUp(t);
  server.faults.push({ match: entry.file, flip: 6 * MIB, times: 1 });
  assertBytes(await get(), right);
  assert.deepEqual(
    server.log.map(({ from, status }) => [from, status]),
    [
      [0, 200],
      [0, 200],
    ],
  );
  assert.equal(tally.loaded, entry.bytes);
});

test("a flipped bit on the server is an error, and nothing of it is kept as whole", async (t) => {
  const { get, server, entry, kept } = await setUp(t);
  server.faults.push({ match: entry.file, flip: 17 });
  await assert.rejects(get(), { name: "EmuError", code: "wrong-hash", message: /vision-00001/ });
  assert.equal(server.log.length, 2);
  assert.ok(!(await kept()).includes(storedName(entry)));
});

test("a damaged file in the store is fetched anew", async (t) => {
  const { get, right, path, server } = await setUp(t);
  await get();
  const damaged = await readFile(path);
  damaged[5] ^= 1;
  await writeFile(path, damaged);
  assertBytes(await get(), right);
  assert.equal(server.log.length, 2);
  await truncate(path, 100);
  assertBytes(await get(), right);
  assert.equal(server.log.length, 3);
});

test("a file that is too short or too long on the server is an error", async (t) => {
  const { get, server, entry, source } = await setUp(t);
  server.faults.push({ match: entry.file, truncate: 5 * MIB });
  await assert.rejects(get(), { code: "short-file", message: /5242880 of 9437307|byte 5242880/ });
  server.faults[0] = { match: entry.file, truncate: 0 };
  await source.store.remove(`${storedName(entry)}.part`);
  await assert.rejects(get(), { code: "short-file" });
  server.faults.length = 0;
  await assert.rejects(get(undefined, { ...entry, bytes: entry.bytes - 1 }), { code: "long-file" });
});

test("a file that is not there is told at once, other refusals too", async (t) => {
  const { get, server, entry } = await setUp(t);
  server.faults.push({ match: entry.file, status: 404 });
  await assert.rejects(get(), { code: "not-found", message: /is not there/ });
  assert.equal(server.log.length, 1);
  server.faults[0] = { match: entry.file, status: 403 };
  await assert.rejects(get(), { code: "fetch", message: /answered 403/ });
  assert.equal(server.log.length, 2);
});

test("a server that stumbles is asked again; one that stays down is given up after four retries", async (t) => {
  const { get, right, server, entry } = await setUp(t);
  server.faults.push({ match: entry.file, status: 500, times: 4 });
  assertBytes(await get(), right);
  assert.deepEqual(
    server.log.map(({ status }) => status),
    [500, 500, 500, 500, 200],
  );
  server.log.length = 0;
  server.faults[0] = { match: "lm-00001", status: 503 };
  const other = { ...entry, file: "lm-00001-of-00002.safetensors" };
  await assert.rejects(get(undefined, other), { code: "fetch", message: /answered 503/ });
  assert.equal(server.log.length, 5);
});

test("a connection that breaks is resumed where it broke", async (t) => {
  const { get, right, server, entry, tally } = await setUp(t);
  server.faults.push({ match: entry.file, cutAfter: 3 * MIB + 5, times: 2 });
  assertBytes(await get(), right);
  assert.deepEqual(
    server.log.map(({ status }) => status),
    [200, 206, 206],
  );
  assert.ok(server.log[1].from > 0 && server.log[2].from > server.log[1].from);
  assert.equal(tally.fetched, entry.bytes, "no byte twice");
});

test("a connection that keeps breaking is patiently resumed as long as it gets on", async (t) => {
  const { get, right, server, entry } = await setUp(t);
  server.faults.push(
    { match: entry.file, cutAfter: 4 * MIB + 4096, times: 1 },
    { match: entry.file, cutAfter: 600_000 },
  );
  // Each later response brings less than a checkpoint, so it counts as a failure.
  await assert.rejects(get(), { code: "fetch", message: /connection failed/ });
  server.faults[1].cutAfter = 4 * MIB + 4096;
  assertBytes(await get(), right);
});

test("a connection that falls silent is given up and opened again", async (t) => {
  const { get, right, server, entry, source } = await setUp(t);
  source.patience = 1000;
  server.faults.push({ match: entry.file, delay: 60_000, times: 1 });
  const start = performance.now();
  assertBytes(await get(), right);
  assert.ok(performance.now() - start < 30_000);
  assert.ok(server.log.length >= 2);
});

test("a session that ends in the midst is resumed at its last checkpoint: less than 4 MiB come twice", async (t) => {
  const { get, right, server, entry, path, tally } = await setUp(t);
  const kill = new AbortController();
  server.faults.push({ match: entry.file, rate: 24 * MIB, times: 1 });
  const first = get(kill.signal);
  first.catch(() => {});
  while ((server.log[0]?.to ?? 0) < 6 * MIB) await sleep(5);
  kill.abort();
  await assert.rejects(first, { name: "AbortError" });
  const size = (await readFile(`${path}.part`)).length;
  assert.equal(size, CHECKPOINT);
  // As after a power loss: incomplete data behind the checkpoint.
  await writeFile(`${path}.part`, Buffer.alloc(1000, 7), { flag: "a" });

  assertBytes(await get(), right);
  assert.equal(server.log[1].from, CHECKPOINT);
  assert.ok(sentTwice(server.log, entry.file) <= CHECKPOINT, "bytes that came twice");
  assert.ok(tally.fetched < entry.bytes + CHECKPOINT);
});

test("what was sent twice is counted", () => {
  const log = [
    { path: "/a", from: 0, to: 10 },
    { path: "/a", from: 8, to: 20 },
    { path: "/b", from: 0, to: 5 },
    { path: "/a", from: 0, to: 3 },
  ];
  assert.equal(sentTwice(log, "/a"), 5);
  assert.equal(sentTwice(log, "/b"), 0);
});

test("a partial file of other content is noticed and replaced", async (t) => {
  const { get, right, server, path } = await setUp(t);
  await writeFile(`${path}.part`, Buffer.alloc(CHECKPOINT, 1));
  assertBytes(await get(), right);
  assert.deepEqual(
    server.log.map(({ from }) => from),
    [CHECKPOINT, 0],
  );
});

test("a partial file longer than the whole is dropped", async (t) => {
  const { get, right, server, path } = await setUp(t);
  await writeFile(`${path}.part`, Buffer.alloc(12 * MIB, 1));
  assertBytes(await get(), right);
  assert.deepEqual(
    server.log.map(({ from }) => from),
    [0],
  );
});

test("a server without Range sends everything again, and the file is right", async (t) => {
  const { get, right, server, entry, path, tally } = await setUp(t);
  await writeFile(`${path}.part`, right.subarray(0, CHECKPOINT));
  server.faults.push({ match: entry.file, noRange: true });
  assertBytes(await get(), right);
  assert.deepEqual(
    server.log.map(({ status, range }) => [status, range]),
    [[200, `bytes=${CHECKPOINT}-`]],
  );
  assert.deepEqual(tally, { loaded: entry.bytes, fetched: entry.bytes });
});

test("a full disk ends the keeping and not the loading", async (t) => {
  for (const error of [
    new DOMException("full", "QuotaExceededError"),
    Object.assign(new Error("full"), { code: "ENOSPC" }),
  ]) {
    const { get, right, source, failures, kept } = await setUp(t);
    const { partial } = source.store;
    source.store.partial = async function (name) {
      const file = await partial.call(this, name);
      const write = file.write.bind(file);
      file.write = async (bytes, at) => {
        if (at > 0) throw error;
        await write(bytes, at);
      };
      return file;
    };
    assertBytes(await get(), right);
    assert.deepEqual(failures, [error]);
    assert.deepEqual(await kept(), [], "the room is given back");
  }
});

test("a store that cannot be read, opened or renamed is no obstacle", async (t) => {
  for (const method of ["open", "partial"]) {
    const { get, right, source, failures } = await setUp(t);
    source.store[method] = async () => {
      throw new Error("broken");
    };
    assertBytes(await get(), right);
    assert.equal(failures.length, 1, method);
  }
  const { get, right, source, failures } = await setUp(t);
  const { partial } = source.store;
  source.store.partial = async function (name) {
    return Object.assign(await partial.call(this, name), { commit: () => Promise.reject(new Error("broken")) });
  };
  assertBytes(await get(), right);
  assert.equal(failures.length, 1);
});

test("two who want the same file get it with one download", async (t) => {
  const { get, right, server } = await setUp(t);
  const [a, b] = await Promise.all([get(), get()]);
  assertBytes(a, right);
  assertBytes(b, right);
  assert.equal(server.log.length, 1);
});

test("an abort is an AbortError in every state, and lets go of the file", async (t) => {
  const { get, right, server, entry } = await setUp(t);
  await assert.rejects(get(AbortSignal.abort()), { name: "AbortError" });
  assert.equal(server.log.length, 0);
  server.faults.push({ match: entry.file, status: 500, times: 1 }, { match: entry.file, delay: 5000, times: 1 });
  const stop = new AbortController();
  const waiting = get(stop.signal);
  setTimeout(() => stop.abort(), 50);
  const start = performance.now();
  await assert.rejects(waiting, { name: "AbortError" });
  assert.ok(performance.now() - start < 500);
  assertBytes(await get(), right);
});

for (const gzip of ["said", "unsaid", "whole"]) {
  test(`a compressed file is resumed rightly or started anew: ranges ${gzip === "whole" ? "of the file" : `of what is compressed, ${gzip}`}`, async (t) => {
    const { get, right, server, entry, tally, source } = await setUp(t, { sparse: true });
    const fault = { match: entry.file, gzip };
    // Cut after more than half of the file, which is beyond the compressed length, and before that.
    for (const cutAfter of [3 * MIB, 1.5 * MIB]) {
      server.faults.splice(0, Infinity, { ...fault, cutAfter, times: 1 }, fault);
      server.log.length = 0;
      tally.loaded = 0;
      assertBytes(await get(), right);
      assert.equal(tally.loaded, entry.bytes);
      assert.ok(server.log.length > 1 && server.log.length <= 5, `${server.log.length} requests`);
      await source.store.remove(storedName(entry));
    }
  });
}

test("what an earlier session left of a compressed file is gone on from, or dropped", async (t) => {
  for (const gzip of ["said", "unsaid", "whole"]) {
    const { get, right, server, entry, source } = await setUp(t, { sparse: true });
    const stop = new AbortController();
    server.faults.push({ match: entry.file, gzip, rate: 8 * MIB, times: 1 }, { match: entry.file, gzip });
    // After the first checkpoint.
    source.fetch = async (...args) => {
      const response = await fetch(...args);
      let came = 0;
      const count = (chunk, out) => {
        out.enqueue(chunk);
        if ((came += chunk.length) > 5 * MIB) stop.abort();
      };
      return new Response(response.body.pipeThrough(new TransformStream({ transform: count })), response);
    };
    await assert.rejects(get(stop.signal), { name: "AbortError" });
    source.fetch = fetch;
    assertBytes(await get(), right);
  }
});

test("a web page in the place of a file is called so, also where the rest of one was asked for", async (t) => {
  const { get, right, server, entry } = await setUp(t);
  server.faults.push({ match: entry.file, page: true });
  const expected = { name: "EmuError", code: "not-found", message: /^vision-00001.* gives a web page\. / };
  await assert.rejects(get(), expected);
  assert.equal(server.log.length, 1, "it is not asked for again");
  server.faults.splice(0, 1, { match: entry.file, cutAfter: 5 * MIB, times: 1 }, { match: entry.file, page: true });
  await assert.rejects(get(), expected);
  server.faults.length = 0;
  assertBytes(await get(), right);
});

test("what only looks like a page is a file", async (t) => {
  const { get, server, entry, source } = await setUp(t);
  const bytes = Buffer.from("<".padEnd(100, "p"));
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  source.fetch = async () => new Response(bytes);
  assertBytes(await get(undefined, { ...entry, bytes: 100, sha256 }), bytes);
  assert.equal(server.log.length, 0);
});
