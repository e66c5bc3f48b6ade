/**
 * What page and worker say to each other.
 *
 * Libraries that make a worker look like a local object (Comlink and others) leave calls pending for ever when the worker
 * dies. Here every call is a message with a number, so that the page can reject it, or send it again to the next worker.
 */

import type { WireError } from "./errors.js";
import type { PackAddress } from "./pack.js";
import type { Component, Costs, DeviceInfo, MemoryInfo, Progress } from "./types.js";
import type { WasmEvent, WasmRequest } from "./wasm.js";

/** A picture on its way to the worker, which decodes it. */
export type WirePicture =
  | { address: string }
  | { blob: Blob }
  | { bytes: Uint8Array }
  | { bitmap: ImageBitmap }
  | { rgba: Uint8ClampedArray; width: number; height: number };

/** Faults that tests ask for. */
export type Fault = "device-lost" | "panic";

/** Work; done in the order in which it comes, one at a time. */
export type Job =
  | { type: "load"; pack: PackAddress; manifest: string; components: readonly Component[]; cache: boolean; wasm?: string | undefined }
  | { type: "run"; request: WasmRequest; pictures: WirePicture[] }
  | { type: "memory" }
  | { type: "costs" }
  /** Nothing: done when everything before it is. */
  | { type: "idle" }
  | { type: "dispose" };

export type ToWorker =
  { type: "job"; id: number; job: Job } | { type: "abort"; id: number } | { type: "provoke"; fault: Fault }
  /** The picture that was asked for; `null` where the page cannot decode it either. */
  | { type: "drawn"; ask: number; bitmap: ImageBitmap | null };

/** What is told while a job runs. */
export type JobEvent =
  | Progress
  | Exclude<WasmEvent, { type: "need" | "usage" }>
  | (Extract<WasmEvent, { type: "usage" }> & { seconds: number });

export type FromWorker =
  | { type: "started"; id: number }
  | { type: "event"; id: number; event: JobEvent }
  | { type: "done"; id: number; value: DeviceInfo | MemoryInfo | Costs | null }
  | { type: "failed"; id: number; error: WireError }
  /** A picture that only a document decodes (SVG): to be answered with `drawn`. */
  | { type: "draw"; ask: number; bytes: Uint8Array }
  /** The worker is of no more use. */
  | { type: "fatal"; error: WireError };

/** One worker, as the page sees it. */
export interface Link {
  post(message: ToWorker): void;
  terminate(): void;
}

/** Starts a worker whose messages go to `receive`. */
export type StartWorker = (device: "webgpu" | "cpu", receive: (message: FromWorker) => void) => Link;
