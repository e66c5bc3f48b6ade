/** Passed self-tests are kept between visits, for what they hold for and as long as they do. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { VERSION } from "../build/version.js";
import { dropVerdicts, hasPassed, keepPassed } from "../build/verdicts.js";
import { fakeCaches } from "./fake-opfs.mjs";
import { fakeModule, gated, PNG } from "./fake-wasm.mjs";
import { outcome, start } from "./harness.mjs";

const DAY = 24 * 60 * 60_000;
const NAME = "emu-webgpu-verdicts";

/** A browser with this user agent. */
function browse(t, userAgent) {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { userAgent }, configurable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
}

beforeEach((t) => browse(t, "Browser/1"));

test("a verdict holds for its device, adapter, browser and version, and no other", async (t) => {
  const all = fakeCaches(t);
  assert.equal(await hasPassed("webgpu", "a"), false);
  assert.equal(all.size, 0, "a question stores nothing");
  await keepPassed("webgpu", "a");
  assert.equal(await hasPassed("webgpu", "a"), true);
  assert.equal(await hasPassed("cpu", "a"), false);
  assert.equal(await hasPassed("webgpu", "b"), false);
  browse(t, "Browser/2");
  assert.equal(await hasPassed("webgpu", "a"), false);
  browse(t, "Browser/1");

  const [entry] = all.get(NAME).entries.values();
  const text = new TextDecoder().decode(entry.bytes);
  assert.ok(text.includes(VERSION));
  entry.bytes = new TextEncoder().encode(text.replace(VERSION, "0.0.1"));
  assert.equal(await hasPassed("webgpu", "a"), false);
});

test("a verdict replaces the one before, and both kinds of devices have their own", async (t) => {
  const all = fakeCaches(t);
  for (const adapter of ["a", "b"]) await keepPassed("webgpu", adapter);
  await keepPassed("cpu", "");
  assert.deepEqual([await hasPassed("webgpu", "a"), await hasPassed("webgpu", "b"), await hasPassed("cpu", "")], [false, true, true]);
  assert.equal(all.get(NAME).entries.size, 2);
  assert.ok([...all.keys()].every((name) => !name.startsWith("emu-webgpu/")), "it would be listed as a pack");
});

test("a verdict holds for thirty days, and not before it was given", async (t) => {
  fakeCaches(t);
  const given = Date.UTC(2027, 0, 1);
  t.mock.timers.enable({ apis: ["Date"], now: given });
  await keepPassed("webgpu", "a");
  for (const [time, holds] of [
    [given + 30 * DAY - 1, true],
    [given + 30 * DAY, false],
    [given - 1, false],
    [given, true],
  ]) {
    t.mock.timers.setTime(time);
    assert.equal(await hasPassed("webgpu", "a"), holds, new Date(time).toISOString());
  }
});

test("what is stored may be anything", async (t) => {
  const all = fakeCaches(t);
  await keepPassed("webgpu", "a");
  const [entry] = all.get(NAME).entries.values();
  const [time, about] = JSON.parse(new TextDecoder().decode(entry.bytes));
  for (const [stored, holds] of [
    [[time, about], true],
    [[null, about], false],
    [["soon", about], false],
    [[time], false],
    [{}, false],
    [null, false],
    [undefined, false],
  ]) {
    entry.bytes = new TextEncoder().encode(JSON.stringify(stored) ?? "[");
    assert.equal(await hasPassed("webgpu", "a"), holds, JSON.stringify(stored));
  }
});

test("without the Cache API, or where it refuses, nothing has passed and nothing fails", async (t) => {
  const refuse = async () => Promise.reject(new DOMException("The operation is insecure.", "SecurityError"));
  const get = () => {
    throw new DOMException("Cache storage is disabled.", "SecurityError");
  };
  t.after(() => delete globalThis.caches);
  for (const property of [null, { value: { open: refuse, match: refuse, delete: refuse } }, { get }]) {
    if (property) Object.defineProperty(globalThis, "caches", { ...property, configurable: true });
    await keepPassed("webgpu", "a");
    assert.equal(await hasPassed("webgpu", "a"), false);
    await dropVerdicts();
  }
  const fake = fakeModule();
  const { emu } = await start(t, { fakes: [fake], cache: true });
  assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
  assert.equal(fake.seen.selfTests, 1);
});

/** Loads as one visit does: its model, and whether the self-test ran. */
async function visit(t, options = {}, fake = fakeModule()) {
  const told = [];
  const onEvent = (event) => event.phase === "compile" && told.push(event.done);
  const { emu, workers } = await start(t, { fakes: [fake, fakeModule()], cache: true, onEvent, ...options });
  assert.equal(told.length > 0, fake.seen.selfTests > 0);
  return { emu, workers, tested: fake.seen.selfTests === 1 };
}

test("a second visit does not test again, unless the device is another or nothing is to be kept", async (t) => {
  const all = fakeCaches(t);
  const gpu = { adapter: () => "a" };
  assert.equal((await visit(t, { gpu, cache: false })).tested, true);
  assert.equal(all.size, 0);
  assert.equal((await visit(t, { gpu })).tested, true);
  const second = await visit(t, { gpu });
  assert.equal(second.tested, false);
  assert.match(await second.emu.caption(PNG, { seed: 2 }), /seed 2/);
  assert.equal((await visit(t, { gpu, cache: false })).tested, true);
  assert.equal((await visit(t, { gpu: { adapter: () => "b" } })).tested, true);
});

test("a test that failed or was aborted, or after which the device is gone, is no verdict", async (t) => {
  fakeCaches(t);
  const failing = fakeModule({ module: { selfTest: () => Promise.reject({ code: "self-test", message: "Wrong sums. Use the CPU." }) } });
  await assert.rejects(visit(t, { device: "webgpu" }, failing), { code: "self-test" });
  assert.equal(await hasPassed("cpu", ""), false);

  const stop = new AbortController();
  // An aborted load ends its worker, which a fake one survives.
  const aborted = fakeModule({ module: { selfTest: () => (stop.abort(), new Promise(() => {})) } });
  await assert.rejects(visit(t, { signal: stop.signal }, aborted), { name: "AbortError" });
  assert.equal(await hasPassed("cpu", ""), false);

  const workers = [];
  const lost = fakeModule({ module: { selfTest: async () => workers[0].lose("gpu-error") } });
  await assert.rejects(visit(t, { device: "webgpu", workers }, lost), { code: "gpu-error" });
  assert.equal(await hasPassed("cpu", ""), false);
  assert.equal((await visit(t)).tested, true);
});

test("a device that fails is tested again, and so is one whose numbers are none", async (t) => {
  fakeCaches(t);
  for (const code of ["device-lost", "gpu-error", "out-of-memory", "crashed"]) {
    const fake = gated();
    const { emu, workers } = await visit(t, {}, fake);
    assert.equal(await hasPassed("cpu", ""), true);
    const call = outcome(emu.caption(PNG));
    await fake.arrived();
    workers[0].lose(code);
    assert.equal(await call, code);
    assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
    assert.equal(workers[1].seen.selfTests, 1, code);
    await dropVerdicts();
  }
  for (const [code, drops] of [["not-finite", true], ["prompt-too-long", false]]) {
    const { emu } = await visit(t, {}, fakeModule({ run: () => Promise.reject({ code, message: "It failed. Try another." }) }));
    assert.equal(await outcome(emu.caption(PNG)), code);
    assert.equal((await visit(t)).tested, drops, code);
  }
});
