/** A fake WebGPU with the methods that the worker wraps. */

import { setTimeout as sleep } from "node:timers/promises";

/** The browser's classes, with the wrapped methods. */
export function fakeWebGpu(t, userAgent) {
  const pipeline = ({ label }, how) => ({ label, how, getBindGroupLayout: (index) => `layout ${index} of ${label}` });
  class GPUQueue {
    submits = 0;
    /** The calls so far, in order. */
    done = [];
    submit(buffers) {
      this.submits += 1;
      this.done.push(["submit", ...buffers]);
    }
    writeBuffer(buffer) {
      this.done.push(["writeBuffer", buffer]);
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
    finish({ label } = {}) {
      return { label };
    }
  }
  class GPUComputePassEncoder {
    done = [];
    setPipeline(pipeline) {
      this.done.push(["setPipeline", pipeline]);
    }
    setBindGroup(index, group) {
      this.done.push(["setBindGroup", group]);
    }
    dispatchWorkgroups(...counts) {
      this.done.push(["dispatchWorkgroups", ...counts]);
    }
    dispatchWorkgroupsIndirect(buffer) {
      this.done.push(["dispatchWorkgroupsIndirect", buffer]);
    }
  }
  class GPUDevice extends EventTarget {
    /** Pipelines in compilation: `make`, `refuse`. */
    making = [];
    createComputePipeline(descriptor) {
      return pipeline(descriptor, "at once");
    }
    createComputePipelineAsync(descriptor) {
      return new Promise((resolve, refuse) => {
        this.making.push({ make: () => resolve(pipeline(descriptor, "in the background")), refuse });
      });
    }
    createBindGroup({ layout }) {
      return { group: layout };
    }
    queue = new GPUQueue();
    pushErrorScope() {}
    async popErrorScope() {
      return null;
    }
    lost = new Promise((resolve) => (this.end = resolve));
    destroy() {
      this.end({ reason: "destroyed", message: "" });
    }
  }
  class GPUBuffer {
    usage = 0x9;
    size = 8;
    maps = 0;
    unmap() {
      this.maps -= 1;
    }
    destroy() {}
    getMappedRange(offset = 0, size = this.size - offset) {
      return new Uint8Array(size).fill(7).buffer;
    }
    mapAsync(mode) {
      this.maps += 1;
      return sleep(30, mode);
    }
  }
  class GPUAdapter {
    features = new Set(["subgroups"]);
    info = { vendor: "google", architecture: "swiftshader", subgroupMinSize: 16 };
    limits = { maxStorageBufferBindingSize: 128 << 20, maxBufferSize: 256 << 20, maxComputeInvocationsPerWorkgroup: 256 };
    requestDevice({ requiredFeatures = [] } = {}) {
      const device = new GPUDevice();
      device.features = new Set(requiredFeatures);
      device.limits = { maxStorageBufferBindingSize: 128 << 20, maxBufferSize: 256 << 20 };
      return Promise.resolve(device);
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

/** Opens a device as the module does. */
export const open = async () => {
  const gpu = new GPU();
  const device = await (await gpu.requestAdapter({ featureLevel: "core" })).requestDevice();
  return { gpu, device };
};
