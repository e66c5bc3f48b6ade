/**
 * Merges two submissions into one for a read-back. The module submits its dispatches, and right after them the copy of the
 * result. So a submission is held back until such a copy follows. It is flushed before any other call that could depend on it, at
 * the latest when the module has returned.
 */

import { wrap } from "./wrap.js";

/** `GPUBufferUsage.MAP_READ`. */
const MAP_READ = 1;

/** The mappable buffer that a copy with these arguments writes to; undefined if the copy stays on the GPU. */
export function resultOf(args: unknown[]): GPUBuffer | undefined {
  const [, second, third] = args;
  const to = (typeof second === "object" ? second : third) as GPUBuffer;
  return to.usage & MAP_READ ? to : undefined;
}

export class Submissions {
  /** The held submission, and the function that submits it. */
  #held: { queue: GPUQueue; submit: (buffers: GPUCommandBuffer[]) => void; buffers: GPUCommandBuffer[] } | null = null;
  /** Encoders and command buffers that copy a result. */
  readonly #copies = new WeakSet<GPUCommandEncoder | GPUCommandBuffer>();

  /** Wraps WebGPU. */
  constructor() {
    // Functions with their own `this` reach this one by name.
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
    const before = <T extends object>(prototype: T, ...names: (keyof T)[]) => {
      for (const name of names) {
        wrap(prototype, name, ((call: (...args: unknown[]) => unknown, ...args: unknown[]) => {
          flush();
          return call(...args);
        }) as never);
      }
    };
    before(GPUQueue.prototype, "writeBuffer", "onSubmittedWorkDone");
    before(GPUBuffer.prototype, "mapAsync", "unmap", "destroy");
    before(GPUDevice.prototype, "pushErrorScope", "popErrorScope", "destroy");
  }

  /** Submits what is held back. */
  #flush(): void {
    const held = this.#held;
    this.#held = null;
    held?.submit(held.buffers);
  }
}
