/**
 * One submission in place of two where a result is read. The module submits what it launched, and right behind it the copy
 * of the result. So what is submitted waits for such a copy; it goes alone where anything else comes first that could depend
 * on it, at the latest when the module has returned.
 */

import { wrap } from "./wrap.js";

/** `GPUBufferUsage.MAP_READ`. */
const MAP_READ = 1;

/** Where a copy with these arguments leaves what is going to be read; nothing where it copies for the GPU. */
export function resultOf(args: unknown[]): GPUBuffer | undefined {
  const [, second, third] = args;
  const to = (typeof second === "object" ? second : third) as GPUBuffer;
  return to.usage & MAP_READ ? to : undefined;
}

export class Submissions {
  /** What waits, and how to submit it. */
  #held: { queue: GPUQueue; submit: (buffers: GPUCommandBuffer[]) => void; buffers: GPUCommandBuffer[] } | null = null;
  /** What copies a result. */
  readonly #copies = new WeakSet<GPUCommandEncoder | GPUCommandBuffer>();

  /** Wraps WebGPU. */
  constructor() {
    // Methods that have `this` of their own reach this one by name.
    const submissions = this;
    const flush = () => this.#flush();
    wrap(GPUCommandEncoder.prototype, "copyBufferToBuffer", function (copy, ...args) {
      if (resultOf(args)) submissions.#copies.add(this);
      copy(...args);
    });
    wrap(GPUCommandEncoder.prototype, "finish", function (finish, ...args) {
      const made = finish(...args);
      if (submissions.#copies.has(this)) submissions.#copies.add(made);
      return made;
    });
    wrap(GPUQueue.prototype, "submit", function (submit, given) {
      const buffers = [...given];
      const held = submissions.#held;
      if (held?.queue === this && buffers.some((buffer) => submissions.#copies.has(buffer))) {
        submissions.#held = null;
        submit([...held.buffers, ...buffers]);
        return;
      }
      flush();
      if (buffers.length === 0 || buffers.some((buffer) => submissions.#copies.has(buffer))) return submit(buffers);
      submissions.#held = { queue: this, submit, buffers };
      queueMicrotask(flush);
    });
    const before = <T extends object, K extends keyof T>(prototype: T, name: K) =>
      wrap(prototype, name, ((call: (...args: unknown[]) => unknown, ...args: unknown[]) => {
        flush();
        return call(...args);
      }) as never);
    before(GPUQueue.prototype, "writeBuffer");
    before(GPUQueue.prototype, "onSubmittedWorkDone");
    before(GPUBuffer.prototype, "mapAsync");
    before(GPUBuffer.prototype, "unmap");
    before(GPUBuffer.prototype, "destroy");
    before(GPUDevice.prototype, "pushErrorScope");
    before(GPUDevice.prototype, "popErrorScope");
    before(GPUDevice.prototype, "destroy");
  }

  /** Submits what waits. */
  #flush(): void {
    const held = this.#held;
    this.#held = null;
    held?.submit(held.buffers);
  }
}
