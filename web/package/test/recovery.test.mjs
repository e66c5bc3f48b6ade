/** A lost device, a panic, a GPU error: a new worker replaces the dead one. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { fakeModule, gated, play, PNG } from "./fake-wasm.mjs";
import { ask, collect, GPU, outcome, start, textOf } from "./harness.mjs";

/** A module that dies in its first run after `after` events, in one of several ways; later runs succeed. */
function dying(how, after = 3, module = {}) {
  let runs = 0;
  return fakeModule({
    module,
    run: async (request, pictures, tell, engine) => {
      const first = runs++ === 0;
      let told = 0;
      const count = async (event) => {
        if (first && ++told > after) await how(tell);
        await tell(event);
      };
      await play(request, pictures, count, engine);
    },
  });
}

const trap = () => {
  throw new WebAssembly.RuntimeError("unreachable");
};
const never = () => new Promise(() => {});

for (const [name, how] of [
  ["a trap", trap],
  ["an error nobody foresaw", () => Promise.reject(new TypeError("x is undefined"))],
]) {
  test(`${name} in the worker ends the call with \`crashed\`; those behind it and the next are done by a new worker`, async (t) => {
    const { emu, workers } = await start(t, { fakes: [dying(how), fakeModule()] });
    const [first, second] = [outcome(emu.caption(PNG, { seed: 1 })), emu.caption(PNG, { seed: 2 })];
    assert.equal(await first, "crashed");
    assert.match(await second, /seed 2/);
    assert.match(await emu.caption(PNG, { seed: 3 }), /seed 3/);
    assert.deepEqual(
      workers.map(({ alive }) => alive),
      [false, true],
    );
    assert.deepEqual([...workers[1].seen.finished].sort(), ["lm", "vision"]);
  });
}

test("a lost device ends the call with `device-lost`, also where nothing would ever answer", async (t) => {
  const fakes = [dying(never), fakeModule()];
  const { emu, workers } = await start(t, { fakes });
  const call = outcome(emu.generateImage("a cat", { seed: 1 }));
  while (workers[0].seen.requests.length === 0) await new Promise((turn) => setTimeout(turn, 1));
  emu.provoke("device-lost");
  assert.equal(await call, "device-lost");
  assert.equal((await emu.generateImage("a cat", { seed: 2 })).seed, 2);
  assert.equal(workers.length, 2);
});

test("on a GPU, a trap that a lost device explains a little later is told as that, and one that nothing explains as it is", async (t) => {
  for (const lost of [true, false]) {
    const open = async () => ({ kind: "webgpu", name: "fake", software: true });
    const gpu = { settled: () => new Promise((resolve) => setTimeout(resolve, 400)) };
    const { emu, workers } = await start(t, { fakes: [dying(trap, 3, { open }), fakeModule()], gpu });
    const call = outcome(emu.caption(PNG, { seed: 1 }));
    const behind = emu.caption(PNG, { seed: 2 });
    while (workers[0].seen.requests.length === 0) await new Promise((turn) => setTimeout(turn, 1));
    if (lost) setTimeout(() => workers[0].lose(), 300);
    assert.equal(await call, lost ? "device-lost" : "crashed");
    assert.match(await behind, /seed 2/);
    assert.equal(workers.length, 2);
  }
});

test("a device lost between two calls is not noticed by the next", async (t) => {
  const { emu, workers } = await start(t);
  workers[0].lose();
  await new Promise((turn) => setTimeout(turn, 10));
  assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
  assert.equal(workers.length, 2);
});

test("errors of the GPU end the call and the worker with their own codes, and are not retried", async (t) => {
  for (const code of ["gpu-error", "out-of-memory"]) {
    const fake = gated();
    const { emu, workers } = await start(t, { fakes: [fake, fakeModule()] });
    const call = outcome(emu.caption(PNG, { retry: true }));
    await fake.arrived();
    workers[0].lose(code);
    assert.equal(await call, code);
    assert.match(await emu.caption(PNG, { seed: 4 }), /seed 4/);
  }
});

test("a read-back that fails is explained by what the browser says next, or was the device", async (t) => {
  const failing = (code) => dying(() => Promise.reject({ code, message: "A buffer could not be mapped." }));
  for (const [told, code] of [
    ["out-of-memory", "out-of-memory"],
    ["gpu-error", "gpu-error"],
    ["device-lost", "device-lost"],
    [null, "device-lost"],
  ]) {
    const { emu, workers } = await start(t, { fakes: [failing("device"), fakeModule()] });
    const call = outcome(emu.caption(PNG));
    if (told) setTimeout(() => workers[0].lose(told), 50);
    assert.equal(await call, code);
    assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
    assert.equal(workers.length, 2);
  }
  // The model's result may be wrong without a fault of the device.
  const { emu, workers } = await start(t, { fakes: [failing("not-finite")] });
  assert.equal(await outcome(emu.caption(PNG)), "not-finite");
  assert.match(await emu.caption(PNG, { seed: 3 }), /seed 3/);
  assert.equal(workers.length, 1);
});

test("retry starts the call again with the same seed, after a crash and a lost device, and nothing comes twice", async (t) => {
  for (const how of [trap, never]) {
    const { emu, workers } = await start(t, { fakes: [dying(how, 4), fakeModule()] });
    const warnings = [];
    const onProgress = (event) => {
      if (event.phase === "warning") warnings.push(event.code);
    };
    const stream = emu.chat(ask(), { retry: true, onProgress });
    const events = [];
    for await (const event of stream) {
      events.push(event);
      if (how === never && events.length === 2 && workers.length === 1) workers[0].lose();
    }
    const { seed } = workers[0].seen.requests[0];
    assert.equal(workers[1].seen.requests[0].seed, seed);
    assert.equal(textOf(events), `a picture of seed ${seed} and 1`);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["text", "text", "text", "text", "image", "usage"],
    );
    assert.deepEqual(warnings, ["restarted"]);
  }
  const { emu } = await start(t, { fakes: [dying(trap, 4), fakeModule()] });
  assert.equal(await emu.caption(PNG, { seed: 9, retry: true }), "a picture of seed 9 and 1");

  // Within the second of two answers: after its first token.
  const { emu: other } = await start(t, { fakes: [dying(trap, 13), fakeModule()] });
  const events = await collect(other.chat(ask(), { n: 2, seed: 3, images: false, logprobs: true, retry: true }));
  assert.deepEqual(
    events.map(({ index, type }) => [index, type]),
    [0, 1].flatMap((index) => ["text", "text", "text", "text", "usage"].map((type) => [index, type])),
  );
  for (const index of [0, 1]) {
    const own = events.filter((event) => event.index === index && event.type === "text");
    assert.equal(textOf(own), `a picture of seed ${3 + index} and 1`);
    assert.equal(own.map(({ logprobs }) => logprobs.map(({ token }) => token).join("")).join(""), textOf(own));
  }
});

test("a call that always crashes is given up after two restarts", async (t) => {
  const { emu, workers } = await start(t, { fakes: [fakeModule({ run: trap })] });
  assert.equal(await outcome(emu.caption(PNG, { retry: true })), "crashed");
  assert.equal(workers.length, 3);
});

test("the tests' panic kills a worker, running or idle", async (t) => {
  const fake = gated();
  const { emu, workers } = await start(t, { fakes: [fake, fakeModule()] });
  const call = outcome(emu.caption(PNG));
  await fake.arrived();
  emu.provoke("panic");
  await new Promise((turn) => setTimeout(turn, 5));
  fake.release();
  assert.equal(await call, "crashed");
  assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
  emu.provoke("panic");
  await new Promise((turn) => setTimeout(turn, 10));
  assert.equal(workers[1].alive, false);
  assert.match(await emu.caption(PNG, { seed: 2 }), /seed 2/);
});

test("after a lost device the machine is looked at again: without a GPU the CPU takes over", async (t) => {
  const adapters = [GPU, null];
  const { emu, workers } = await start(t, { adapters });
  workers[0].lose();
  await new Promise((turn) => setTimeout(turn, 10));
  await emu.caption(PNG);
  assert.deepEqual(
    workers.map(({ kind }) => kind),
    ["webgpu", "cpu"],
  );
  assert.equal(emu.support.device, "cpu");

  const forced = await start(t, { adapters, device: "webgpu" });
  forced.workers[0].lose();
  await new Promise((turn) => setTimeout(turn, 10));
  await assert.rejects(forced.emu.caption(PNG), { code: "no-webgpu", message: /no WebGPU adapter/ });
});

test("a GPU that fails its self-test is left for the CPU where the choice was free", async (t) => {
  const failing = () =>
    fakeModule({
      module: { selfTest: () => Promise.reject({ code: "self-test", message: "This device computes sums wrongly." }) },
    });
  const warnings = [];
  const onEvent = (event) => event.phase === "warning" && warnings.push(event.code);
  const { emu, workers } = await start(t, { fakes: [failing(), fakeModule()], onEvent });
  assert.deepEqual(
    workers.map(({ kind, alive }) => [kind, alive]),
    [
      ["webgpu", false],
      ["cpu", true],
    ],
  );
  assert.deepEqual(warnings, ["gpu-failed"]);
  assert.match(emu.support.reasons.join(" "), /computes sums wrongly.*so the CPU is used/);
  await assert.rejects(start(t, { fakes: [failing(), fakeModule()], device: "webgpu" }), { code: "self-test" });
});
