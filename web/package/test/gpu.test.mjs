import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { nudger, watchGpu } from "../build/gpu.js";
import { wrap } from "../build/wrap.js";
import { fakeWebGpu, open } from "./fake-webgpu.mjs";

test("the adapter for heavy work is asked for", async (t) => {
  fakeWebGpu(t, "Chrome/1");
  watchGpu(() => {});
  const { gpu } = await open();
  assert.deepEqual(gpu.asked, { featureLevel: "core", powerPreference: "high-performance" });
});

test("a device is opened with subgroups where the adapter has them", async (t) => {
  const { GPUAdapter: Adapter } = fakeWebGpu(t, "Chrome/1");
  const watch = watchGpu(() => {});
  assert.equal(watch.subgroups(), 0);
  const { device } = await open();
  assert.deepEqual([...device.features], ["subgroups"]);
  assert.equal(watch.subgroups(), 16);
  const silent = new Adapter();
  silent.info = {};
  await silent.requestDevice({ requiredFeatures: ["timestamp-query"] });
  assert.equal(watch.subgroups(), 4);
});

test("an adapter is described by what it is, what it has and how much", async (t) => {
  const { GPUAdapter: Adapter } = fakeWebGpu(t, "Chrome/1");
  const watch = watchGpu(() => {});
  assert.equal(watch.adapter(), "");
  const seen = new Set();
  for (const change of [{}, { info: {} }, { info: { vendor: "google", architecture: "swiftshader", description: "a newer one" } }, { features: new Set() }, { limits: { maxBufferSize: 1 } }]) {
    await Object.assign(new Adapter(), change).requestDevice();
    seen.add(watch.adapter());
  }
  assert.equal(seen.size, 5);
  await open();
  assert.ok(seen.has(watch.adapter()));
});

test("a device has no subgroups where the adapter has none", async (t) => {
  const { GPUAdapter: Adapter } = fakeWebGpu(t, "Firefox/1");
  const watch = watchGpu(() => {});
  const adapter = new Adapter();
  adapter.features = new Set();
  const device = await adapter.requestDevice({ requiredFeatures: ["timestamp-query"] });
  assert.deepEqual([...device.features], ["timestamp-query"]);
  assert.equal(watch.subgroups(), 0);
});

test("a device that is lost or refuses a command is told of, by code", async (t) => {
  fakeWebGpu(t, "Chrome/1");
  const errors = [];
  const watch = watchGpu((error) => errors.push(error));
  const { device } = await open();
  const tell = (error) => device.dispatchEvent(Object.assign(new Event("uncapturederror"), { error }));
  tell({ message: "binding 3 is too small" });
  tell(new GPUOutOfMemoryError());
  watch.destroy();
  tell({ message: "the buffer is of a device that is gone" });
  await sleep(1);
  assert.deepEqual(
    errors.map(({ code }) => code),
    ["gpu-error", "out-of-memory", "device-lost"],
  );
  assert.match(errors[0].message, /binding 3 is too small/);
  assert.match(errors[2].message, /destroyed/);
  watch.destroy();
});

test("the end of a device is waited for: of one ended here, or while its queue has work", async (t) => {
  for (const [ended, told] of [
    [true, 400],
    [false, 400],
    [false, null],
  ]) {
    const { GPUDevice: Device, GPUQueue: Queue } = fakeWebGpu(t, "Firefox/1");
    Device.prototype.destroy = () => {};
    Queue.prototype.onSubmittedWorkDone = () => sleep(350).then(() => Promise.reject(new Error("gone")));
    const errors = [];
    const watch = watchGpu(({ code }) => errors.push(code));
    await watch.settled();
    const { device } = await open();
    if (ended) watch.destroy();
    if (told) setTimeout(() => device.end({ reason: "destroyed", message: "" }), told);
    await watch.settled();
    assert.deepEqual(errors, told ? ["device-lost"] : []);
  }
});

test("in Firefox the queue is nudged while a read-back is pending, and only then", async (t) => {
  const { GPUBuffer: Buffer, GPUQueue: Queue } = fakeWebGpu(t, "Mozilla/5.0 (rv:153.0) Gecko/20100101 Firefox/153.0");
  // As in Firefox, promises resolve only after another submission; here they wait forever.
  const answered = (device) => async () => {
    const before = device.queue.submits;
    for (const start = performance.now(); device.queue.submits < before + 5; await sleep(1)) {
      assert.ok(performance.now() - start < 5000, "nobody nudges");
    }
    return "mapped";
  };
  let device;
  Buffer.prototype.mapAsync = () => answered(device)();
  Queue.prototype.onSubmittedWorkDone = () => answered(device)();
  watchGpu(() => {});
  ({ device } = await open());
  assert.equal(await new Buffer().mapAsync(1), "mapped");
  await sleep(20);
  const { submits } = device.queue;
  await sleep(50);
  assert.equal(device.queue.submits, submits, "nothing is pending");
  assert.equal(await device.queue.onSubmittedWorkDone(), "mapped");
});

test("what the GPU is asked for is counted", async (t) => {
  const { GPUBuffer: Buffer, GPUCommandEncoder: Encoder, GPUComputePassEncoder: Pass } = fakeWebGpu(t, "Chrome/1");
  const watch = watchGpu(() => {});
  const { device } = await open();
  const zero = { launches: 0, submits: 0, readBacks: 0, readBackBytes: 0, pipelines: 0 };
  assert.deepEqual(watch.counts(), zero);
  device.createComputePipeline({});
  new Pass().dispatchWorkgroups(1, 1, 1);
  new Pass().dispatchWorkgroups(2);
  device.queue.submit([{}]);
  device.queue.submit([]);
  const [kept, read] = [{ usage: 0x84 }, { usage: 0x9 }].map((about) => Object.assign(new Buffer(), { size: 48 }, about));
  const encoder = new Encoder();
  encoder.copyBufferToBuffer(kept, 16, read, 0, 4);
  encoder.copyBufferToBuffer(kept, read);
  encoder.copyBufferToBuffer(kept, 0, kept, 8, 8);
  assert.equal(encoder.copies, 3);
  assert.deepEqual(watch.counts(), { launches: 2, submits: 1, readBacks: 2, readBackBytes: 52, pipelines: 1 });
  assert.equal(device.queue.submits, 2, "nothing is held back");
});

test("launches are submitted with the copy of what is read, and before anything that may depend on them", async (t) => {
  const { GPUBuffer: Buffer, GPUCommandEncoder: Encoder } = fakeWebGpu(t, "Chrome/1");
  const watch = watchGpu(() => {});
  const { device } = await open();
  const { queue } = device;
  const work = (label) => new Encoder().finish({ label });
  const copy = (label) => {
    const encoder = new Encoder();
    encoder.copyBufferToBuffer({}, 0, new Buffer(), 0, 4);
    return encoder.finish({ label });
  };
  const done = () => queue.done.splice(0).map(([what, ...with_]) => [what, ...with_.map(({ label }) => label)]);
  const submits = () => watch.counts().submits;

  // One submission instead of two.
  queue.submit([work("a")]);
  assert.deepEqual(done(), []);
  queue.submit([copy("a copied")]);
  assert.deepEqual(done(), [["submit", "a", "a copied"]]);
  assert.equal(submits(), 1);
  // Separate submissions stay separate, in order, and the last waits no longer than the module runs.
  queue.submit([work("b")]);
  queue.submit([work("c")]);
  assert.deepEqual(done(), [["submit", "b"]]);
  await null;
  assert.deepEqual(done(), [["submit", "c"]]);
  queue.submit([copy("alone")]);
  assert.deepEqual(done(), [["submit", "alone"]]);
  assert.equal(submits(), 4);

  const buffer = Object.assign(new Buffer(), { label: "x" });
  const others = {
    write: () => queue.writeBuffer(buffer),
    wait: () => void queue.onSubmittedWorkDone(),
    map: () => void buffer.mapAsync(1),
    unmap: () => buffer.unmap(),
    destroy: () => buffer.destroy(),
    scope: () => device.pushErrorScope("validation"),
    unscope: () => void device.popErrorScope(),
    nudge: () => queue.submit([]),
  };
  for (const [name, other] of Object.entries(others)) {
    queue.submit([work(name)]);
    assert.deepEqual(done(), []);
    other();
    assert.deepEqual(done()[0], ["submit", name], name);
  }
  // Submissions of different devices are not merged.
  const { device: second } = await open();
  queue.submit([work("first")]);
  second.queue.submit([copy("second")]);
  assert.deepEqual(done(), [["submit", "first"]]);
  assert.equal(second.queue.submits, 1);
});

test("elsewhere it is not", async (t) => {
  fakeWebGpu(
    t,
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
  );
  watchGpu(() => {});
  const { device } = await open();
  await new GPUBuffer().mapAsync(1);
  assert.equal(device.queue.submits, 0);
});

test("where there is no WebGPU nothing is wrapped", () => {
  const watch = watchGpu(() => assert.fail());
  watch.destroy();
});

test("nudging follows any number of promises, and lets their errors through", async () => {
  let submits = 0;
  const nudge = nudger(() => ({ submit: () => submits++ }));
  await Promise.all([
    nudge(sleep(5)),
    nudge(sleep(10)),
    assert.rejects(nudge(Promise.reject(new Error("lost"))), /lost/),
  ]);
  assert.ok(submits > 0);
  const after = submits;
  await sleep(20);
  assert.ok(submits <= after + 1);
  // A long wait is no busy loop: after the first turns, one nudge per timer of a millisecond.
  const waited = nudge(sleep(200));
  await sleep(80);
  const early = submits;
  await waited;
  assert.ok(submits > early && submits - early <= 130, `${submits - early} submits in 120 ms`);
  const never = nudger(() => undefined);
  assert.equal(await never(Promise.resolve(3)), 3);
});

test("a wrapped method has its object, and gives what the wrapper gives", () => {
  class Counter {
    n = 2;
    times(x) {
      return this.n * x;
    }
  }
  wrap(Counter.prototype, "times", (old, x) => old(x) + 1);
  assert.equal(new Counter().times(5), 11);
});
