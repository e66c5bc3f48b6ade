/** Capabilities of this machine, as far as the browser reports them. */

import type { Support } from "./types.js";

export type AdapterInfo = NonNullable<Support["adapter"]>;

/** Names of software GPUs: correct, but slower than the CPU path. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|basic render|warp\b/i;

/** The high-performance WebGPU adapter; `null` if there is none. */
export async function findAdapter(): Promise<AdapterInfo | null> {
  const gpu = (globalThis.navigator as Navigator | undefined)?.gpu;
  let adapter: GPUAdapter | null = null;
  try {
    adapter = (await gpu?.requestAdapter({ powerPreference: "high-performance" })) ?? null;
  } catch {
    // Some browsers throw if WebGPU is blocked.
  }
  return adapter && describeAdapter(adapter);
}

export function describeAdapter(adapter: GPUAdapter): AdapterInfo {
  // Older browsers report less, or report it elsewhere.
  const info = (adapter.info ?? {}) as Partial<GPUAdapterInfo>;
  const fallback = info.isFallbackAdapter ?? (adapter as { isFallbackAdapter?: boolean }).isFallbackAdapter ?? false;
  const words = [info.vendor, info.architecture, info.device, info.description].filter((word) => word);
  const { maxBufferSize, maxStorageBufferBindingSize, maxComputeInvocationsPerWorkgroup } = adapter.limits;
  return {
    name: words.join(" ") || "WebGPU adapter",
    software: fallback || SOFTWARE.test(words.join(" ")),
    features: [...adapter.features].sort(),
    limits: { maxBufferSize, maxStorageBufferBindingSize, maxComputeInvocationsPerWorkgroup },
  };
}

/** Whether WebAssembly SIMD is supported: validates a module with one function that creates a 128-bit vector. */
export function hasSimd(): boolean {
  const module = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ];
  return WebAssembly.validate(new Uint8Array(module));
}

/** Memory of the machine in bytes; `null` if it is not reported, or at or above the cap of 8 GiB that browsers report. */
export function machineMemory(): number | null {
  const gibibytes = (globalThis.navigator as { deviceMemory?: number } | undefined)?.deviceMemory;
  return gibibytes !== undefined && gibibytes < 8 ? gibibytes * 2 ** 30 : null;
}

/** Bytes of storage quota left for the origin; `null` if unknown. */
export async function freeStorage(): Promise<number | null> {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined ? null : Math.max(0, quota - (usage ?? 0));
  } catch {
    return null;
  }
}
