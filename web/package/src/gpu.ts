/**
 * What the worker adds to WebGPU, whose device the WASM module opens and owns: the GPU for heavy work, word of lost devices
 * and of errors, pipelines that are made before they are needed, fewer submissions, and in Firefox an answer to read-backs before its 100 ms
 * timer. Done by wrapping methods of the browser's classes, inside the package's own worker only.
 */

import type { WireError } from "./errors.js";
import { Pipelines } from "./pipelines.js";
import { resultOf, Submissions } from "./submissions.js";
import { sleep, turn } from "./turn.js";
import type { Costs } from "./types.js";
import { wrap } from "./wrap.js";

/** What a GPU was asked to do so far, rehearsals aside. */
export type GpuCounts = Pick<Costs, "launches" | "submits" | "readBacks" | "readBackBytes" | "pipelines">;

export interface GpuWatch {
  counts(): GpuCounts;
  /** Invocations of the smallest subgroup of the device that was opened; 0 where it has none. */
  subgroups(): number;
  /** Begins a rehearsal, in which nothing is computed; see `pipelines.ts`. Returns how to end it. */
  rehearse(): () => void;
  /** Waits for the pipelines that rehearsals asked for, and tells how many are there. */
  compiled(tell: (done: number, total: number) => void, signal: AbortSignal): Promise<void>;
  /** Waits until a device that is gone has been told of, which some browsers do only when its queue has come to an end. */
  settled(): Promise<void>;
  /** Gives back the GPU's memory now, and not when the worker is collected. Counts as a loss unless the worker is done. */
  destroy(): void;
}

/** Milliseconds of nudging in every turn; after that, once per timer. */
const EAGER = 20;
/** Milliseconds within which a browser tells what is wrong with a device, where something is. */
export const EXPLAINED = 250;
/** Milliseconds after which a queue is given up. */
const SETTLED = 10_000;

/** Wraps WebGPU before the module opens its device. `onError` is told of the first thing that goes wrong. */
export function watchGpu(onError: (error: WireError) => void): GpuWatch {
  if (typeof GPUAdapter === "undefined") return noGpu;
  const devices = new Set<GPUDevice>();
  /** Those that were ended here too, until the browser says so. */
  const opened = new Set<GPUDevice>();
  const counts = none();
  const end = (device: GPUDevice) => {
    devices.delete(device);
    device.destroy();
  };
  const refused = (device: GPUDevice, error: GPUError) => {
    // What is refused because the device was ended here is no news: its end is told.
    if (devices.has(device)) onError(describe(error));
  };
  /** Gives the browser the time to tell that a device is lost. */
  const told = (device: GPUDevice) => Promise.race([device.lost, sleep(EXPLAINED)]);
  const settle = async (device: GPUDevice) => {
    if (!devices.has(device)) return void (await device.lost);
    try {
      await device.queue.onSubmittedWorkDone();
    } catch {
      // It is gone.
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
  // Around the counting: what is joined counts once.
  new Submissions();
  wrap(GPUDevice.prototype, "createComputePipeline", (create, descriptor) => {
    counts.pipelines += 1;
    return create(descriptor);
  });
  // What is read is copied first; buffers that are mapped may be longer.
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
  wrap(GPUAdapter.prototype, "requestDevice", async function (request, descriptor) {
    // wgpu does not know of them in browsers.
    const more = this.features.has("subgroups") ? (["subgroups"] as GPUFeatureName[]) : [];
    const device = await request({ ...descriptor, requiredFeatures: [...(descriptor?.requiredFeatures ?? []), ...more] });
    // A device need not tell how many; all have four.
    if (device.features.has("subgroups")) invocations = this.info.subgroupMinSize || 4;
    devices.add(device);
    opened.add(device);
    void device.lost.then(({ reason, message }) => {
      devices.delete(device);
      opened.delete(device);
      const why = message || reason || "no reason given";
      onError({
        code: "device-lost",
        message: `The GPU was lost (${why}). Call again: the model is loaded anew from the cache.`,
      });
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

/** Where there is no GPU to watch. */
export const noGpu: GpuWatch = {
  counts: none,
  subgroups: () => 0,
  rehearse: () => () => {},
  compiled: async () => {},
  settled: async () => {},
  destroy: () => {},
};

/** Follows promises that come true only when something is submitted: submits nothing, over and over, while one is pending. */
export function nudger(queue: () => Pick<GPUQueue, "submit"> | undefined): <T>(pending: Promise<T>) => Promise<T> {
  let pending = 0;
  let running = false;
  const run = async () => {
    running = true;
    const start = performance.now();
    while (pending > 0) {
      queue()?.submit([]);
      // A long computation is not worth a busy core.
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
