/** Unit tests of small functions. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { abortError, EmuError, fromWire, isFatal, toWire } from "../build/errors.js";
import { fileUrl, packAddress, packUrl } from "../build/pack.js";
import { toProgress } from "../build/session.js";
import { Stream } from "../build/stream.js";
import { sleep, turn } from "../build/turn.js";
import { sampleOffsets } from "../build/video.js";
import { collect } from "./harness.mjs";

test("frames are chosen as the released code chooses them", () => {
  // Values from the native program's own test.
  assert.deepEqual(sampleOffsets(120, 8), [7, 22, 37, 52, 67, 81, 96, 111]);
  assert.deepEqual(sampleOffsets(250, 8), [15, 46, 77, 108, 139, 171, 202, 233]);
  assert.deepEqual(sampleOffsets(132, 8), [8, 24, 41, 57, 74, 90, 106, 123]);
  // Steps of exactly 1.5: halves are rounded to even.
  assert.deepEqual(sampleOffsets(13, 8), [0, 2, 3, 4, 6, 8, 9, 10]);
  assert.deepEqual(sampleOffsets(8, 8), [0, 1, 2, 3, 4, 4, 5, 6]);
  assert.deepEqual(sampleOffsets(1, 8), Array(8).fill(0));
  assert.deepEqual(sampleOffsets(0, 8), []);
  for (let total = 1; total < 300; total++)
    assert.ok(
      sampleOffsets(total, 8).every((at) => at >= 0 && at < total),
      String(total),
    );
});

test("errors keep code and message on their way, and what has no code is a crash", () => {
  const there = (error) => fromWire(structuredClone(toWire(error)));
  const coded = there(new EmuError("wrong-hash", "It is wrong. Do something."));
  assert.deepEqual([coded.name, coded.code, coded.message], ["EmuError", "wrong-hash", "It is wrong. Do something."]);
  assert.ok(coded instanceof EmuError && coded instanceof Error);
  assert.equal(there({ code: "too-long", message: "x" }).code, "too-long");
  assert.equal(there(abortError()).name, "AbortError");
  for (const error of [
    new TypeError("x"),
    new WebAssembly.RuntimeError("unreachable"),
    "text",
    null,
    undefined,
    { code: 5, message: "x" },
    new DOMException("x", "DataError"),
  ]) {
    assert.equal(there(error).code, "crashed", String(error));
    assert.ok(isFatal(toWire(error)));
  }
  assert.ok(!isFatal(toWire(new EmuError("bad-image", "x"))));
});

test("a stream gives what was pushed, in order, then ends or throws", async () => {
  const stream = new Stream();
  stream.push(1);
  const all = collect(stream);
  await turn();
  stream.push(2);
  stream.push(3);
  stream.close();
  stream.fail(new Error("too late"));
  assert.deepEqual(await all, [1, 2, 3]);

  const failing = new Stream();
  failing.push(1);
  failing.fail(new Error("broken"));
  const seen = [];
  await assert.rejects(async () => {
    for await (const item of failing) seen.push(item);
  }, /broken/);
  assert.deepEqual(seen, [1]);
});

test("sleeping ends early with an abort, and leaves no listener behind", async () => {
  const stop = new AbortController();
  const start = performance.now();
  setTimeout(() => stop.abort(), 5);
  await assert.rejects(sleep(5000, stop.signal), { name: "AbortError" });
  await assert.rejects(sleep(5000, stop.signal), { name: "AbortError" });
  await sleep(1, new AbortController().signal);
  assert.ok(performance.now() - start < 1000);
});

test("a pack's address has one form", () => {
  for (const given of ["m", "m/", "m/emu.json", "/m/", "https://a.b/m#x"])
    assert.equal(packUrl(given, "https://a.b/"), "https://a.b/m/", given);
  assert.equal(packUrl("https://a.b/m?key=1"), "https://a.b/m/?key=1");
  assert.equal(packUrl("https://a.b"), "https://a.b/");
  assert.equal(packUrl("npm:emu-webgpu-mini"), "npm:emu-webgpu-mini");
  assert.throws(() => packUrl("m"), { code: "bad-request" });
  // A query (for example a signature) is appended to every file.
  assert.equal(fileUrl(packAddress("https://a.b/c/?key=1"), "x.safetensors"), "https://a.b/c/x.safetensors?key=1");
  assert.equal(fileUrl({ url: "npm:x", files: { a: "https://a.b/a-1234" } }, "a"), "https://a.b/a-1234");
  assert.throws(() => fileUrl({ url: "npm:x", files: {} }, "toString"), { code: "not-found" });
});

test("progress is a union on `phase`", () => {
  assert.deepEqual(toProgress({ type: "prefill", tokens: 3 }), { phase: "prefill", tokens: 3 });
  assert.deepEqual(toProgress({ type: "denoise", step: 1, steps: 2 }), { phase: "denoise", step: 1, steps: 2 });
  assert.deepEqual(toProgress({ type: "decode-image" }), { phase: "decode-image" });
  assert.equal(toProgress({ type: "text", text: "x" }), null);
  const compile = { phase: "compile", done: 1, total: 2 };
  assert.equal(toProgress(compile), compile);
});
