/**
 * The message protocol between page and worker.
 *
 * Libraries that make a worker look like a local object (Comlink and others) leave calls pending forever when the worker dies.
 * Here every call is a message with an id, so that the page can reject it, or send it again to the next worker.
 */

import type { WireError } from "./errors.js";
import type { PackAddress } from "./pack.js";
import type { Paces } from "./pace.js";
import type { Component, Costs, DeviceInfo, MemoryInfo, Progress } from "./types.js";
import type { WasmEvent, WasmRequest } from "./wasm.js";

/** A picture as it is sent to the worker, which decodes it. */
export type WirePicture =
  | { address: string }
  | { blob: Blob }
  | { bytes: Uint8Array }
  | { bitmap: ImageBitmap }
  | { rgba: Uint8ClampedArray; width: number; height: number };

/** Faults that tests can inject. */
export type Fault = "device-lost" | "panic";

/** A unit of work. Jobs run one at a time, in the order in which they arrive. */
export type Job =
  | { type: "load"; pack: PackAddress; manifest: string; components: readonly Component[]; cache: boolean; wasm?: string | undefined }
  | { type: "run"; request: WasmRequest; pictures: WirePicture[] }
  | { type: "memory" }
  | { type: "costs" }
  /** No work: done when all earlier jobs are. */
  | { type: "idle" }
  | { type: "dispose" };

export type ToWorker =
  { type: "job"; id: number; job: Job } | { type: "abort"; id: number } | { type: "provoke"; fault: Fault }
  /** The reply to `draw`; `null` if the page cannot decode the picture either. */
  | { type: "drawn"; ask: number; bitmap: ImageBitmap | null };

/** Events of a running job. */
export type JobEvent =
  | Progress
  | Exclude<WasmEvent, { type: "need" | "usage" }>
  | (Extract<WasmEvent, { type: "usage" }> & Paces);

export type FromWorker =
  | { type: "started"; id: number }
  | { type: "event"; id: number; event: JobEvent }
  | { type: "done"; id: number; value: DeviceInfo | MemoryInfo | Costs | null }
  | { type: "failed"; id: number; error: WireError }
  /** A picture that only a document can decode (SVG). The page replies with `drawn`. */
  | { type: "draw"; ask: number; bytes: Uint8Array }
  /** The worker can no longer be used. */
  | { type: "fatal"; error: WireError };

/** One worker, as the page sees it. */
export interface Link {
  post(message: ToWorker): void;
  terminate(): void;
}

/** Starts a worker whose messages go to `receive`. */
export type StartWorker = (device: "webgpu" | "cpu", receive: (message: FromWorker) => void) => Link;
