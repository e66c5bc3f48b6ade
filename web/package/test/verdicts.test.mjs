/** Passed self-tests are kept, by device, browser and version, and no longer than they hold. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { hasPassed, keepVerdict } from "../build/verdicts.js";
import { fakeModule, PNG } from "./fake-wasm.mjs";
import { outcome, start } from "./harness.mjs";

const DEVICE = { kind: "webgpu", name: "an adapter", software: true };

/** Gives this process the Cache API for the length of a test. Returns what is kept. */
function withCaches(t, broken = () => false) {
  const kept = new Map();
  const cache = {
    match: async (url) => kept.get(url)?.clone(),
    put: async (url, response) => void kept.set(url, response),
    delete: async (url) => kept.delete(url),
  };
  const open = async () => {
    if (broken()) throw new DOMException("refused", "SecurityError");
    return cache;
  };
  Object.defineProperty(globalThis, "caches", { value: { open }, configurable: true });
  Object.defineProperty(globalThis, "navigator", { value: { userAgent: "a browser" }, configurable: true, writable: true });
  t.after(() => {
    delete globalThis.caches;
    delete globalThis.navigator;
  });
  return kept;
}

test("a verdict holds for its device and browser, for thirty days", async (t) => {
  withCaches(t);
  t.mock.timers.enable({ apis: ["Date"], now: 1e12 });
  assert.equal(await hasPassed(DEVICE), false);
  await keepVerdict(DEVICE, true);
  assert.equal(await hasPassed(DEVICE), true);
  assert.equal(await hasPassed({ ...DEVICE, kind: "cpu" }), false);
  assert.equal(await hasPassed({ ...DEVICE, name: "another" }), false);
  navigator.userAgent = "another browser";
  assert.equal(await hasPassed(DEVICE), false);
  navigator.userAgent = "a browser";
  t.mock.timers.setTime(1e12 + 29 * 864e5);
  assert.equal(await hasPassed(DEVICE), true);
  t.mock.timers.setTime(1e12 + 31 * 864e5);
  assert.equal(await hasPassed(DEVICE), false);
  await keepVerdict(DEVICE, true);
  await keepVerdict(DEVICE, false);
  assert.equal(await hasPassed(DEVICE), false);
});

test("without the Cache API, or where it is refused, nothing is kept and nothing fails", async (t) => {
  await keepVerdict(DEVICE, true);
  assert.equal(await hasPassed(DEVICE), false);
  let broken = false;
  withCaches(t, () => broken);
  await keepVerdict(DEVICE, true);
  broken = true;
  assert.equal(await hasPassed(DEVICE), false);
  await keepVerdict(DEVICE, false);
  broken = false;
  assert.equal(await hasPassed(DEVICE), true);
});

/** A fake module that counts its self-tests. */
function counting(overrides = {}) {
  let tests = 0;
  const selfTest = overrides.selfTest ?? (async () => {});
  const fake = fakeModule({ ...overrides, module: { selfTest: (...all) => (tests++, selfTest(...all)) } });
  return { fake, tests: () => tests };
}

test("a second load does not test again; a load that caches nothing always does", async (t) => {
  const kept = withCaches(t);
  for (const [cache, expected] of [[false, 1], [false, 1], [true, 1], [true, 0], [false, 1]]) {
    const { fake, tests } = counting();
    await start(t, { fakes: [fake], cache });
    assert.equal(tests(), expected, `cache: ${cache}`);
  }
  assert.equal(kept.size, 1);
});

test("a failed test keeps nothing", async (t) => {
  const kept = withCaches(t);
  const { fake } = counting({ selfTest: () => Promise.reject({ code: "self-test", message: "Sums are wrong." }) });
  assert.equal(await outcome(start(t, { fakes: [fake], cache: true, device: "cpu" })), "self-test");
  assert.equal(kept.size, 0);
});

test("a result that is no number, and a crash, remove the verdict; an ordinary error does not", async (t) => {
  const kept = withCaches(t);
  for (const [code, left] of [["too-long", 1], ["not-finite", 0], ["crashed", 0]]) {
    const { fake } = counting({ run: () => Promise.reject({ code, message: "It failed." }) });
    const { emu } = await start(t, { fakes: [fake], cache: true });
    assert.equal(kept.size, 1);
    assert.equal(await outcome(emu.caption(PNG)), code);
    assert.equal(kept.size, left, code);
  }
});
