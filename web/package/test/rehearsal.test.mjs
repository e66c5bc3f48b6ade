import assert from "node:assert/strict";
import { test } from "node:test";

import { watchGpu } from "../build/gpu.js";
import { enough, kindOf, shortened } from "../build/rehearsal.js";
import { fakeModule, play, PNG } from "./fake-wasm.mjs";
import { fakeWebGpu, open } from "./fake-webgpu.mjs";
import { outcome, start } from "./harness.mjs";

const turns = () => new Promise((resolve) => setTimeout(resolve, 5));
const never = new AbortController().signal;

test("in a rehearsal pipelines are made in the background, and nothing is computed", async (t) => {
  const { GPUBuffer: Buffer, GPUCommandEncoder: Encoder, GPUComputePassEncoder: Pass } = fakeWebGpu(t, "Chrome/1");
  const watch = watchGpu(() => assert.fail());
  const { device } = await open();
  const before = device.createComputePipeline({ label: "a" });
  const end = watch.rehearse();
  const stands = ["b", "c"].map((label) => device.createComputePipeline({ label }));
  const pass = new Pass();
  const launch = (pipeline) => {
    const layout = pipeline.getBindGroupLayout(0);
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout }));
    pass.dispatchWorkgroups(1, 2, 3);
  };
  for (const pipeline of [before, ...stands]) launch(pipeline);
  pass.dispatchWorkgroupsIndirect({});
  const encoder = new Encoder();
  const [read, late] = [new Buffer(), new Buffer()];
  encoder.copyBufferToBuffer({ usage: 0x84 }, 0, read, 0, 8);
  device.queue.submit([{}]);
  const bytes = (buffer, ...range) => [...new Uint8Array(buffer.getMappedRange(...range))];
  for (const buffer of [read, late]) await buffer.mapAsync(1);
  assert.deepEqual([bytes(read, 0, 2), bytes(read, 6), bytes(read).length], [[0, 0], [0, 0], 8]);
  read.unmap();
  await device.queue.onSubmittedWorkDone();
  assert.equal(read.maps, 0, "the GPU is not asked");
  assert.deepEqual(bytes(new Buffer(), 0, 2), [7, 7], "what is written is no result");
  assert.deepEqual([pass.done, encoder.copies, device.queue.submits], [[], 1, 1]);
  assert.equal(device.making.length, 2, "both at a time");
  end();

  const told = [];
  const compiled = watch.compiled((done, total) => told.push(`${done}/${total}`), never);
  for (const { make } of device.making) {
    make();
    await turns();
  }
  await compiled;
  assert.deepEqual(told, ["0/2", "1/2", "2/2"]);
  launch(stands[1]);
  assert.deepEqual(
    pass.done.map(([what, made]) => [what, made.how ?? made.group ?? made]),
    [
      ["setPipeline", "in the background"],
      ["setBindGroup", "layout 0 of c"],
      ["dispatchWorkgroups", 1],
    ],
  );
  assert.equal(pass.done[0][1].label, "c");
  assert.equal(device.createComputePipeline({ label: "d" }).how, "at once");
  assert.deepEqual(bytes(late, 0, 2), [0, 0], "also where it is read later");
  late.unmap();
  await read.mapAsync(1);
  assert.deepEqual([bytes(read, 0, 2), read.maps, late.maps], [[7, 7], 1, 0]);
  const counts = { launches: 1, submits: 0, readBacks: 0, readBackBytes: 0, pipelines: 4 };
  assert.deepEqual(watch.counts(), counts, "what was rehearsed did not happen, but for its pipelines");
  await watch.compiled(() => assert.fail("there is nothing to tell"), never);
});

test("whoever waits for pipelines can stop, and the next one waits for the rest", async (t) => {
  fakeWebGpu(t, "Chrome/1");
  const watch = watchGpu(() => assert.fail());
  const { device } = await open();
  const end = watch.rehearse();
  for (const label of ["a", "b", "c"]) device.createComputePipeline({ label });
  end();
  const [a, b, c] = device.making;
  const told = [];
  const tell = (done, total) => told.push(`${done}/${total}`);
  const controller = new AbortController();
  const waiting = outcome(watch.compiled(tell, controller.signal));
  a.make();
  await turns();
  controller.abort();
  assert.equal(await waiting, "AbortError");
  const rest = watch.compiled(tell, never);
  b.make();
  await turns();
  c.make();
  await rest;
  assert.deepEqual(told, ["0/3", "1/3", "1/3", "2/3", "3/3"]);
});

test("a pipeline that is refused is told of as any refused command; not where the device is gone", async (t) => {
  fakeWebGpu(t, "Chrome/1");
  for (const lost of [false, true]) {
    const errors = [];
    const watch = watchGpu((error) => errors.push(error));
    const { device } = await open();
    const end = watch.rehearse();
    device.createComputePipeline({ label: "a" });
    end();
    const waiting = watch.compiled(() => {}, never);
    device.making[0].refuse(new Error("the shader has no entry point"));
    await turns();
    if (lost) device.destroy();
    await waiting;
    assert.deepEqual(
      errors.map(({ code }) => code),
      [lost ? "device-lost" : "gpu-error"],
    );
    if (!lost) assert.match(errors[0].message, /no entry point/);
  }
});

/** A module on a GPU, with a log of its events. Runs while `rehearsing` compute nothing. */
function onGpu({ run = play, pending = 0 } = {}) {
  const log = [];
  const state = { rehearsing: false, pending: 0 };
  const gpu = {
    rehearse: () => {
      log.push("begin");
      state.rehearsing = true;
      state.pending = pending;
      return () => {
        log.push("end");
        state.rehearsing = false;
      };
    },
    compiled: async (tell, signal) => {
      for (let done = 0; state.pending > 0; state.pending--) {
        tell(done++, pending);
        await turns();
        if (signal.aborted) throw new DOMException("Aborted.", "AbortError");
      }
    },
  };
  const fake = fakeModule({
    run: async (request, pictures, tell, engine) => {
      log.push(`${state.rehearsing ? "rehearse" : "run"} ${request.task}`);
      await run(request, pictures, tell, engine, state);
    },
    module: { open: async () => ({ kind: "webgpu", name: "fake", software: true }) },
  });
  const memory = fake.module.Engine.prototype.memory;
  fake.module.Engine.prototype.memory = function () {
    log.push("hand over");
    return memory.call(this);
  };
  return { log, state, gpu, fakes: [fake], seen: fake.seen };
}

const REHEARSAL = (task) => ["hand over", "begin", `rehearse ${task}`, "hand over", "end", `run ${task}`];

test("on a GPU the first request of a kind is rehearsed, with what was launched before handed over", async (t) => {
  const { log, gpu, fakes, seen } = onGpu({ pending: 3 });
  const { emu } = await start(t, { gpu, fakes });
  const told = [];
  const options = { seed: 3, onProgress: (progress) => told.push(progress) };
  const before = await emu.costs();
  assert.equal(await emu.caption(PNG, options), "a picture of seed 3 and 1");
  assert.deepEqual(log, REHEARSAL("caption"));
  assert.deepEqual(seen.rehearsals, [true, false], "the engine keeps nothing of a rehearsal");
  const compile = told.filter(({ phase }) => phase === "compile");
  assert.deepEqual(compile, [0, 1, 2].map((done) => ({ phase: "compile", done, total: 3 })));
  assert.deepEqual(
    told.slice(3).map(({ phase }) => phase),
    ["prefill", "decode", "decode", "decode", "decode"],
    "of the rehearsal nothing else is told",
  );
  // The fake module counts 12 bytes per request.
  assert.equal((await emu.costs()).weightBytes - before.weightBytes, 12);

  log.length = told.length = 0;
  assert.equal(await emu.caption(PNG, { ...options, seed: 4 }), "a picture of seed 4 and 1");
  assert.deepEqual(log, ["run caption"]);
  assert.ok(!told.some(({ phase }) => phase === "compile"));

  log.length = 0;
  await emu.caption(PNG, { ...options, topK: 5 });
  assert.deepEqual(log, REHEARSAL("caption"), "another kernel chooses");

  log.length = seen.requests.length = 0;
  await emu.generateImage("a fox", { seed: 1, steps: 40, previewEvery: 5 });
  assert.deepEqual(log, REHEARSAL("image"));
  const [short, whole] = seen.requests.map(({ draw }) => draw);
  assert.deepEqual([short.steps, short.previewEvery, whole.steps, whole.previewEvery], [3, 1, 40, 5]);
});

test("on the CPU nothing is rehearsed", async (t) => {
  const { log, gpu, fakes } = onGpu();
  fakes[0].module.open = async () => ({ kind: "cpu", name: "fake", software: true });
  const { emu } = await start(t, { gpu, fakes });
  await emu.caption(PNG, {});
  assert.deepEqual(log, ["run caption"]);
});

test("what is wrong with a request is told once, when it runs in earnest, and it is rehearsed again", async (t) => {
  let wrong = true;
  const { log, gpu, fakes } = onGpu({
    run: async (...args) => {
      if (wrong) throw { code: "prompt-too-long", message: "Too long." };
      await play(...args);
    },
  });
  const { emu } = await start(t, { gpu, fakes });
  assert.equal(await outcome(emu.caption(PNG, {})), "prompt-too-long");
  assert.deepEqual(log, REHEARSAL("caption"));
  wrong = false;
  log.length = 0;
  await emu.caption(PNG, {});
  assert.deepEqual(log, REHEARSAL("caption"));
});

test("a rehearsal that crashes ends the worker", async (t) => {
  const { log, gpu, fakes } = onGpu({
    run: async () => {
      throw new Error("unreachable");
    },
  });
  const { emu } = await start(t, { gpu, fakes });
  assert.equal(await outcome(emu.caption(PNG, {})), "crashed");
  assert.deepEqual(log, ["hand over", "begin", "rehearse caption", "end"]);
});

test("an abort ends a rehearsal, and the wait for what it asked for; the next call waits for the rest", async (t) => {
  for (const when of ["rehearse", "compile"]) {
    const controller = new AbortController();
    const { log, gpu, fakes, state } = onGpu({
      pending: 2,
      run: async (...args) => {
        if (when === "rehearse") controller.abort();
        await turns();
        await play(...args);
      },
    });
    const { emu } = await start(t, { gpu, fakes });
    const onProgress = ({ phase }) => phase === "compile" && controller.abort();
    assert.equal(await outcome(emu.caption(PNG, { signal: controller.signal, onProgress })), "AbortError");
    // The worker ends the job a little later.
    await emu.memory();
    assert.ok(!log.includes("run caption"), when);
    const told = [];
    assert.equal(state.rehearsing, false);
    log.length = 0;
    assert.match(await emu.caption(PNG, { seed: 1, onProgress: ({ phase }) => told.push(phase) }), /picture/);
    assert.equal(told[0], "compile", "before anything else is launched");
    assert.equal(log.at(-1), "run caption");
  }
});

test("where a rehearsal would have to load something, it ends", async (t) => {
  const { log, gpu, fakes, seen } = onGpu();
  const { emu } = await start(t, { gpu, fakes });
  const events = [];
  for await (const event of emu.chat([{ role: "user", content: "draw" }], { seed: 2 })) events.push(event.type);
  assert.ok(events.includes("image"));
  assert.equal(seen.finished.filter((component) => component === "decoder").length, 1);
  assert.deepEqual(log, REHEARSAL("chat"));
});

test("kinds differ by what chooses kernels, not by what is said or drawn", () => {
  const text = {};
  const chat = (over = {}) => ({ task: "chat", messages: [], text, images: true, draw: {}, seed: 1, ...over });
  const image = (draw = {}) => ({ task: "image", parts: [{ text: "a" }], draw, seed: 1 });
  const same = (a, b, pictures = [1, 1]) => assert.equal(kindOf(a, pictures[0]), kindOf(b, pictures[1]));
  const differ = (a, b, pictures = [1, 1]) => assert.notEqual(kindOf(a, pictures[0]), kindOf(b, pictures[1]));
  same(chat(), chat({ seed: 2, messages: [{ role: "user", parts: [{ text: "b" }] }], draw: { steps: 3 } }));
  differ(chat(), chat({ images: false }));
  differ(chat(), chat({ text: { beams: 4 } }));
  differ(chat(), chat({ text: { ...text, presencePenalty: 0.5 } }));
  differ(chat(), chat({ text: { ...text, logitBias: { 5: 1 } } }));
  differ(chat(), chat({ text: { ...text, topLogprobs: 0 } }));
  same(chat(), chat({ text: { ...text, stop: ["a"], n: 3 } }));
  same(chat({ text: { ...text, logitBias: { 5: 1 } } }), chat({ text: { ...text, logitBias: { 7: 2, 8: 2 } } }));
  differ(chat(), { task: "caption", text, seed: 1 });
  differ(chat(), chat(), [0, 1]);
  differ(chat(), chat(), [1, 2]);
  same(chat(), chat(), [2, 7]);
  same(image({ steps: 30, previewEvery: 2, negative: "a" }), image({ steps: 5, previewEvery: 7, negative: "b" }));
  differ(image(), image({ negative: "b" }));
  differ(image(), image({ width: 64 }));
  differ(image(), image({ previewEvery: 1 }));
  same({ task: "embed" }, { task: "embed" });
  assert.deepEqual(shortened(chat()), chat());
  assert.ok(enough(chat(), { type: "decode", tokens: 3 }) && !enough(chat(), { type: "decode", tokens: 2 }));
  assert.ok(!enough(image(), { type: "decode", tokens: 64 }) && enough(image(), { type: "need", component: "safety" }));
});
