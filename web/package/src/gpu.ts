/**
 * Extensions of WebGPU in the worker, whose device the WASM module opens and owns: the high-performance adapter, reports of lost
 * devices and errors, pipelines compiled before they are needed, fewer submissions, and in Firefox read-backs that resolve before
 * its 100 ms timer. Implemented by wrapping methods of the browser's classes, inside the package's own worker only.
 */

import { describeAdapter } from "./adapter.js";
import type { WireError } from "./errors.js";
import { Pipelines } from "./pipelines.js";
import { resultOf, Submissions } from "./submissions.js";
import { sleep, turn } from "./turn.js";
import type { Costs } from "./types.js";
import { wrap } from "./wrap.js";

/** GPU counters so far, excluding rehearsals. */
export type GpuCounts = Pick<Costs, "launches" | "submits" | "readBacks" | "readBackBytes" | "pipelines">;

export interface GpuWatch {
  counts(): GpuCounts;
  /** Minimum subgroup size of the opened device; 0 if it has no subgroups. */
  subgroups(): number;
  /** All that is known about the adapter of the opened device; empty if there is none. */
  adapter(): string;
  /** Starts a rehearsal, which computes nothing; see `pipelines.ts`. Returns a function that ends it. */
  rehearse(): () => void;
  /** Waits for the pipelines that rehearsals requested, and reports the progress. */
  compiled(tell: (done: number, total: number) => void, signal: AbortSignal): Promise<void>;
  /** Waits until a lost device has been reported, which some browsers do only when its queue has drained. */
  settled(): Promise<void>;
  /** Frees the GPU memory now, not when the worker is collected. Counts as a device loss unless the worker is done. */
  destroy(): void;
}

/** Milliseconds of nudging on every turn of the event loop; after that, once per timer. */
const EAGER = 20;
/** Milliseconds within which a browser reports what is wrong with a device, if anything is. */
export const EXPLAINED = 250;
/** Milliseconds after which waiting for a queue is given up. */
const SETTLED = 10_000;

/** Wraps WebGPU before the module opens its device. `onError` is called on a lost device and on a GPU error. */
export function watchGpu(onError: (error: WireError) => void): GpuWatch {
  if (typeof GPUAdapter === "undefined") return noGpu;
  const devices = new Set<GPUDevice>();
  /** Open devices, including those destroyed here until the browser reports their loss. */
  const opened = new Set<GPUDevice>();
  const counts = none();
  const end = (device: GPUDevice) => {
    devices.delete(device);
    device.destroy();
  };
  const refused = (device: GPUDevice, error: GPUError) => {
    // Errors of a device that was destroyed here are ignored: its loss is reported.
    if (devices.has(device)) onError(describe(error));
  };
  /** Gives the browser time to report a device loss. */
  const told = (device: GPUDevice) => Promise.race([device.lost, sleep(EXPLAINED)]);
  const settle = async (device: GPUDevice) => {
    if (!devices.has(device)) return void (await device.lost);
    try {
      await device.queue.onSubmittedWorkDone();
    } catch {
      // The device is gone.
    }
    await told(device);
  };
  const pipelines = new Pipelines(async (device, error) => {
    await told(device);
    refused(device, error);
  });
  wrap(GPUComputePassEncoder.prototype, "dispatchWorkgroups", (dispatch, ...args) => {
    if (!pipelines.rehearsing) counts.launches += 1;
    dispatch(...args);
  });
  wrap(GPUQueue.prototype, "submit", (submit, buffers) => {
    const held = [...buffers];
    if (held.length > 0 && !pipelines.rehearsing) counts.submits += 1;
    submit(held);
  });
  // Wrapped after the counters: a merged submission counts once.
  new Submissions();
  wrap(GPUDevice.prototype, "createComputePipeline", (create, descriptor) => {
    counts.pipelines += 1;
    return create(descriptor);
  });
  // A read-back starts with a copy. The mapped buffer may be longer than the copied range.
  wrap(GPUCommandEncoder.prototype, "copyBufferToBuffer", (copy, ...args) => {
    const result = resultOf(args);
    if (result && !pipelines.rehearsing) {
      const size = args.at(-1);
      counts.readBacks += 1;
      counts.readBackBytes += typeof size === "number" ? size : result.size;
    }
    copy(...args);
  });

  wrap(GPU.prototype, "requestAdapter", (request, options) =>
    request({ ...options, powerPreference: "high-performance" }),
  );
  let invocations = 0;
  let adapter = "";
  wrap(GPUAdapter.prototype, "requestDevice", async function (request, descriptor) {
    // wgpu does not support subgroups in browsers.
    const more = this.features.has("subgroups") ? (["subgroups"] as GPUFeatureName[]) : [];
    const device = await request({ ...descriptor, requiredFeatures: [...(descriptor?.requiredFeatures ?? []), ...more] });
    // The property is optional; the minimum is 4 on all devices.
    if (device.features.has("subgroups")) invocations = this.info.subgroupMinSize || 4;
    adapter = JSON.stringify(describeAdapter(this));
    devices.add(device);
    opened.add(device);
    void device.lost.then(({ reason, message }) => {
      devices.delete(device);
      opened.delete(device);
      onError(lost(message || reason || "no reason given"));
    });
    device.addEventListener("uncapturederror", ({ error }) => refused(device, error));
    return device;
  });

  if (/\bFirefox\//.test(navigator.userAgent)) {
    // Mozilla bug 1870699.
    const nudge = nudger(() => devices.values().next().value?.queue);
    wrap(GPUBuffer.prototype, "mapAsync", (map, ...args) => nudge(map(...args)));
    wrap(GPUQueue.prototype, "onSubmittedWorkDone", (done) => nudge(done()));
  }
  return {
    counts: () => ({ ...counts }),
    subgroups: () => invocations,
    adapter: () => adapter,
    rehearse: () => pipelines.rehearse(),
    compiled: (tell, signal) => pipelines.compiled(tell, signal),
    settled: async () => {
      const patience = new AbortController();
      await Promise.race([Promise.all([...opened].map(settle)), sleep(SETTLED, patience.signal)]);
      patience.abort();
    },
    destroy: () => devices.forEach(end),
  };
}

const none = (): GpuCounts => ({ launches: 0, submits: 0, readBacks: 0, readBackBytes: 0, pipelines: 0 });

/** For environments without a GPU. */
export const noGpu: GpuWatch = {
  counts: none,
  subgroups: () => 0,
  adapter: () => "",
  rehearse: () => () => {},
  compiled: async () => {},
  settled: async () => {},
  destroy: () => {},
};

/** Tracks promises that resolve only on a submission: submits nothing, over and over, while one is pending. */
export function nudger(queue: () => Pick<GPUQueue, "submit"> | undefined): <T>(pending: Promise<T>) => Promise<T> {
  let pending = 0;
  let running = false;
  const run = async () => {
    running = true;
    const start = performance.now();
    while (pending > 0) {
      queue()?.submit([]);
      // A long computation does not justify a busy core.
      if (performance.now() - start < EAGER) await turn();
      else await new Promise((resolve) => setTimeout(resolve, 1));
    }
    running = false;
  };
  return (promise) => {
    pending += 1;
    if (!running) void run();
    return promise.finally(() => {
      pending -= 1;
    });
  };
}

/** The error of a lost device. */
export const lost = (why: string): WireError => ({
  code: "device-lost",
  message: `The GPU was lost (${why}). Call again: the model is loaded anew from the cache.`,
});

function describe(error: GPUError): WireError {
  if (error instanceof GPUOutOfMemoryError) {
    return {
      code: "out-of-memory",
      message: "The GPU has no more memory. Close other pages, use a smaller pack, or choose the CPU.",
    };
  }
  return {
    code: "gpu-error",
    message: `The GPU refused a command (${error.message}). Update the browser and the graphics driver, or choose the CPU.`,
  };
}
