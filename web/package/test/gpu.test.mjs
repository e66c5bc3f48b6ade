import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { nudger, watchGpu, wrap } from "../dist/gpu.js";

/** Classes as a browser has them, as far as they are wrapped. */
function fakeWebGpu(t, userAgent) {
  class GPUQueue {
    submits = 0;
    submit() {
      this.submits += 1;
    }
    onSubmittedWorkDone() {
      return sleep(30);
    }
  }
  class GPUCommandEncoder {
    copies = 0;
    copyBufferToBuffer() {
      this.copies += 1;
    }
  }
  class GPUComputePassEncoder {
    dispatchWorkgroups() {}
  }
  class GPUDevice extends EventTarget {
    createComputePipeline() {
      return {};
    }
    queue = new GPUQueue();
    lost = new Promise((resolve) => (this.end = resolve));
    destroy() {
      this.end({ reason: "destroyed", message: "" });
    }
  }
  class GPUBuffer {
    mapAsync(mode) {
      return sleep(30, mode);
    }
  }
  class GPUAdapter {
    requestDevice() {
      return Promise.resolve(new GPUDevice());
    }
  }
  class GPU {
    requestAdapter(options) {
      this.asked = options;
      return Promise.resolve(new GPUAdapter());
    }
  }
  class GPUOutOfMemoryError {}
  const classes = {
    GPU,
    GPUAdapter,
    GPUBuffer,
    GPUCommandEncoder,
    GPUComputePassEncoder,
    GPUDevice,
    GPUOutOfMemoryError,
    GPUQueue,
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.assign(globalThis, classes);
  Object.defineProperty(globalThis, "navigator", { value: { userAgent }, configurable: true });
  t.after(() => {
    for (const name of Object.keys(classes)) delete globalThis[name];
    if (before) Object.defineProperty(globalThis, "navigator", before);
    else delete globalThis.navigator;
  });
  return classes;
}

const open = async () => {
  const gpu = new GPU();
  const device = await (await gpu.requestAdapter({ featureLevel: "core" })).requestDevice();
  return { gpu, device };
};

test("the adapter for heavy work is asked for", async (t) => {
  fakeWebGpu(t, "Chrome/1");
  watchGpu(() => {});
  const { gpu } = await open();
  assert.deepEqual(gpu.asked, { featureLevel: "core", powerPreference: "high-performance" });
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

test("in Firefox the queue is nudged while a read-back is pending, and only then", async (t) => {
  const { GPUBuffer: Buffer, GPUQueue: Queue } = fakeWebGpu(t, "Mozilla/5.0 (rv:153.0) Gecko/20100101 Firefox/153.0");
  // As Firefox does: nothing is answered before something more is submitted; here, for ever.
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
  // A long wait is not spent in a busy loop: once per timer of a millisecond, after a beginning in every turn.
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
