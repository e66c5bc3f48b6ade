/**
 * What the worker adds to WebGPU, whose device the WASM module opens and owns: the GPU for heavy work, word of lost devices
 * and of errors, and in Firefox an answer to read-backs before its 100 ms timer. Done by wrapping methods of the browser's
 * classes, inside the package's own worker only.
 */

import type { WireError } from "./errors.js";
import { turn } from "./turn.js";
import type { Costs } from "./types.js";

/** What a GPU was asked to do so far. */
export type GpuCounts = Pick<Costs, "launches" | "submits" | "readBacks" | "readBackBytes" | "pipelines">;

export interface GpuWatch {
  counts(): GpuCounts;
  /** Gives back the GPU's memory now, and not when the worker is collected. Counts as a loss unless the worker is done. */
  destroy(): void;
}

/** `GPUBufferUsage.MAP_READ`. */
const MAP_READ = 1;
/** Milliseconds of nudging in every turn; after that, once per timer. */
const EAGER = 20;

/** Wraps WebGPU before the module opens its device. `onError` is told of the first thing that goes wrong. */
export function watchGpu(onError: (error: WireError) => void): GpuWatch {
  if (typeof GPUAdapter === "undefined") return noGpu;
  const devices = new Set<GPUDevice>();
  const counts = none();
  const end = (device: GPUDevice) => {
    devices.delete(device);
    device.destroy();
  };
  wrap(GPUComputePassEncoder.prototype, "dispatchWorkgroups", (dispatch, ...args) => {
    counts.launches += 1;
    dispatch(...args);
  });
  wrap(GPUQueue.prototype, "submit", (submit, buffers) => {
    const held = [...buffers];
    if (held.length > 0) counts.submits += 1;
    submit(held);
  });
  wrap(GPUDevice.prototype, "createComputePipeline", (create, descriptor) => {
    counts.pipelines += 1;
    return create(descriptor);
  });
  // What is read is copied first; buffers that are mapped may be longer.
  wrap(GPUCommandEncoder.prototype, "copyBufferToBuffer", (copy, ...args) => {
    const [, second, third] = args as unknown[];
    const to = (typeof second === "object" ? second : third) as GPUBuffer;
    const size = args.at(-1);
    if (to.usage & MAP_READ) {
      counts.readBacks += 1;
      counts.readBackBytes += typeof size === "number" ? size : to.size;
    }
    copy(...args);
  });

  wrap(GPU.prototype, "requestAdapter", (request, options) =>
    request({ ...options, powerPreference: "high-performance" }),
  );
  wrap(GPUAdapter.prototype, "requestDevice", async (request, descriptor) => {
    const device = await request(descriptor);
    devices.add(device);
    void device.lost.then(({ reason, message }) => {
      devices.delete(device);
      const why = message || reason || "no reason given";
      onError({
        code: "device-lost",
        message: `The GPU was lost (${why}). Call again: the model is loaded anew from the cache.`,
      });
    });
    device.addEventListener("uncapturederror", ({ error }) => {
      // What is refused because the device was ended here is no news: its end is told.
      if (devices.has(device)) onError(describe(error));
    });
    return device;
  });

  if (/\bFirefox\//.test(navigator.userAgent)) {
    // Mozilla bug 1870699.
    const nudge = nudger(() => devices.values().next().value?.queue);
    wrap(GPUBuffer.prototype, "mapAsync", (map, ...args) => nudge(map(...args)));
    wrap(GPUQueue.prototype, "onSubmittedWorkDone", (done) => nudge(done()));
  }
  return { counts: () => ({ ...counts }), destroy: () => devices.forEach(end) };
}

const none = (): GpuCounts => ({ launches: 0, submits: 0, readBacks: 0, readBackBytes: 0, pipelines: 0 });

/** Where there is no GPU to watch. */
export const noGpu: GpuWatch = { counts: none, destroy: () => {} };

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

type Method<T, K extends keyof T> = T[K] extends (...args: infer A) => infer R ? (...args: A) => R : never;

/** Replaces a method by one that is given the old one, bound, and the same `this`. */
export function wrap<T extends object, K extends keyof T>(
  prototype: T,
  name: K,
  around: (this: T, old: Method<T, K>, ...args: Parameters<Method<T, K>>) => ReturnType<Method<T, K>>,
): void {
  const old = prototype[name] as Method<T, K>;
  prototype[name] = function (this: T, ...args: Parameters<Method<T, K>>) {
    return around.call(this, old.bind(this) as Method<T, K>, ...args);
  } as T[K];
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
