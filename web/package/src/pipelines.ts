/**
 * Pipelines that are there before they are needed.
 *
 * The module makes a pipeline when it first launches its kernel, and must have it at once, so that a browser compiles one
 * after the other while the module waits. So a request is *rehearsed*: the module runs it, and nothing that it launches
 * reaches the GPU. What it asks for meanwhile is made in the background, many at a time, and it is given stand-ins. It keeps
 * them for good; from then on they stand for what was made.
 *
 * In a rehearsal nothing is computed. Launches and what they bind are dropped; uploads, copies and submissions are made, so
 * that what is kept arrives where it belongs. Where a result is read, there are zeros at once: whatever lies in that memory
 * could be no number, or no token.
 */

import { throwIfAborted } from "./errors.js";
import { wrap } from "./wrap.js";

/** `GPUMapMode.READ`. */
const READ = 1;

/** What the module is given in a rehearsal. Of a pipeline it uses no more. */
class StandIn {
  real: GPUComputePipeline | undefined;

  getBindGroupLayout(index: number): GPUBindGroupLayout {
    // What is made with the layout of one that is not there is dropped.
    return this.real ? this.real.getBindGroupLayout(index) : ({} as GPUBindGroupLayout);
  }
}

export class Pipelines {
  /** Whether a request is rehearsed now. */
  rehearsing = false;
  /** Buffers that were mapped in a rehearsal, which may be read after its end: nothing is in them. */
  readonly #blank = new WeakSet<GPUBuffer>();
  readonly #pending = new Set<Promise<void>>();
  /** Of those that are awaited now, how many are no longer pending. */
  #settled = 0;

  /** Wraps WebGPU. `onRefused` is told what a device says where it does not make a pipeline. */
  constructor(private readonly onRefused: (device: GPUDevice, error: Error) => Promise<void>) {
    // Methods that have `this` of their own reach this one by name.
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
    wrap(pass, "setBindGroup", (set, ...args) => {
      if (!this.rehearsing) set(...args);
    });
    wrap(pass, "dispatchWorkgroups", (dispatch, ...args) => {
      if (!this.rehearsing) dispatch(...args);
    });
    wrap(pass, "dispatchWorkgroupsIndirect", (dispatch, ...args) => {
      if (!this.rehearsing) dispatch(...args);
    });
    // Nobody waits for the GPU, which has pipelines to make.
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

  /** Begins a rehearsal. What was launched before must have been handed to the browser. Returns how to end it. */
  rehearse(): () => void {
    this.rehearsing = true;
    return () => {
      this.rehearsing = false;
    };
  }

  /** Waits for everything that rehearsals have asked for, and tells how much of it is there. */
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
