/**
 * Pipelines that are compiled before they are needed.
 *
 * The module creates a pipeline when it first dispatches its kernel, and needs it at once. The browser would therefore compile
 * pipelines one after the other while the module waits. So a request is *rehearsed*: a dry run, in which none of the module's
 * dispatches reach the GPU. The pipelines that it requests are compiled in the background, many at a time, and the module gets
 * placeholders. It keeps them for good; afterwards each stands for its compiled pipeline.
 *
 * A rehearsal computes nothing. Dispatches and bind groups are dropped; uploads, copies and submissions are executed, so that
 * data that the module keeps reaches its buffers. Read-backs return zeros at once: uncomputed memory could hold NaN or an invalid
 * token.
 */

import { throwIfAborted } from "./errors.js";
import { wrap } from "./wrap.js";

/** `GPUMapMode.READ`. */
const READ = 1;

/** Placeholder for a pipeline in a rehearsal. The module uses no other method of a pipeline. */
class StandIn {
  real: GPUComputePipeline | undefined;

  getBindGroupLayout(index: number): GPUBindGroupLayout {
    // A bind group that is created with the layout of a missing pipeline is dropped.
    return this.real ? this.real.getBindGroupLayout(index) : ({} as GPUBindGroupLayout);
  }
}

export class Pipelines {
  /** Whether a rehearsal is in progress. */
  rehearsing = false;
  /** Buffers that were mapped in a rehearsal, and may be read after its end: they read as zeros. */
  readonly #blank = new WeakSet<GPUBuffer>();
  readonly #pending = new Set<Promise<void>>();
  /** Number of awaited pipelines that are no longer pending. */
  #settled = 0;

  /** Wraps WebGPU. `onRefused` is called with a device's error if it does not create a pipeline. */
  constructor(private readonly onRefused: (device: GPUDevice, error: Error) => Promise<void>) {
    // Functions with their own `this` reach this one by name.
    const pipelines = this;
    wrap(GPUDevice.prototype, "createComputePipeline", function (create, descriptor) {
      return pipelines.rehearsing ? pipelines.#start(this, descriptor) : create(descriptor);
    });
    wrap(GPUDevice.prototype, "createBindGroup", (create, descriptor) =>
      this.rehearsing ? ({} as GPUBindGroup) : create(descriptor),
    );
    const pass = GPUComputePassEncoder.prototype;
    wrap(pass, "setPipeline", (set, pipeline) => {
      if (!this.rehearsing) set(pipeline instanceof StandIn ? pipeline.real! : pipeline);
    });
    for (const name of ["setBindGroup", "dispatchWorkgroups", "dispatchWorkgroupsIndirect"] as const) {
      wrap(pass, name, ((call: (...args: unknown[]) => void, ...args: unknown[]) => {
        if (!this.rehearsing) call(...args);
      }) as never);
    }
    // A rehearsal does not wait for the GPU, which has pipelines to compile.
    wrap(GPUQueue.prototype, "onSubmittedWorkDone", (done) => (this.rehearsing ? Promise.resolve(undefined) : done()));
    wrap(GPUBuffer.prototype, "mapAsync", function (map, mode, ...range) {
      if (!pipelines.rehearsing || mode !== READ) return map(mode, ...range);
      pipelines.#blank.add(this);
      return Promise.resolve(undefined);
    });
    wrap(GPUBuffer.prototype, "getMappedRange", function (get, offset = 0, size) {
      return pipelines.#blank.has(this) ? new ArrayBuffer(size ?? this.size - offset) : get(offset, size);
    });
    wrap(GPUBuffer.prototype, "unmap", function (unmap) {
      if (!pipelines.#blank.delete(this)) unmap();
    });
  }

  /** Starts a rehearsal. Earlier dispatches must have been passed to the browser. Returns a function that ends the rehearsal. */
  rehearse(): () => void {
    this.rehearsing = true;
    return () => {
      this.rehearsing = false;
    };
  }

  /** Waits for all pipelines that rehearsals requested, and reports the progress. */
  async compiled(tell: (done: number, total: number) => void, signal: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    while (this.#pending.size > 0) {
      throwIfAborted(signal);
      tell(this.#settled, this.#settled + this.#pending.size);
      await Promise.race([...this.#pending, aborted]);
    }
    if (this.#settled > 0) tell(this.#settled, this.#settled);
    this.#settled = 0;
  }

  #start(device: GPUDevice, descriptor: GPUComputePipelineDescriptor): GPUComputePipeline {
    const standIn = new StandIn();
    const made = device.createComputePipelineAsync(descriptor).then(
      (pipeline) => {
        standIn.real = pipeline;
      },
      (error: Error) => this.onRefused(device, error),
    );
    const pending = made.then(() => {
      this.#pending.delete(pending);
      this.#settled += 1;
    });
    this.#pending.add(pending);
    return standIn as unknown as GPUComputePipeline;
  }
}
