/** The error class, its stable codes, and error serialization for `postMessage`. */

/** Stable error codes. The engine's own codes (`missing-tensor`, `too-long`, ...) are passed through unchanged. */
export type EmuErrorCode =
  // The pack.
  | "bad-manifest"
  | "unknown-format"
  | "bad-name"
  | "version"
  // Fetching.
  | "fetch"
  | "not-found"
  | "short-file"
  | "long-file"
  | "wrong-hash"
  // The machine.
  | "unsupported"
  | "no-webgpu"
  | "too-large"
  | "out-of-memory"
  | "self-test"
  | "gpu-error"
  | "device-lost"
  | "crashed"
  | "worker"
  | "cache"
  // The call.
  | "bad-request"
  | "bad-image"
  | "bad-video"
  | "no-decoder"
  | "disposed"
  | (string & {});

/** An error of this package. The message has one sentence on the problem and one on the remedy. */
export class EmuError extends Error {
  override readonly name = "EmuError";

  constructor(
    /** A stable code to branch on. */
    readonly code: EmuErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Serialized form of an error. */
export interface WireError {
  code: string;
  message: string;
}

/** The error that an aborted call rejects with. */
export function abortError(): DOMException {
  return new DOMException("The call was aborted.", "AbortError");
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Throws an `AbortError` if `signal` is aborted, whatever reason the caller gave. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError();
}

/** Whether an error carries a code: an {@link EmuError}, or an error of the WASM module. */
function isCoded(error: unknown): error is WireError {
  const { code, message } = (error ?? {}) as Partial<WireError>;
  return typeof code === "string" && typeof message === "string" && !(error instanceof DOMException);
}

/** Serializes any error. An error without a code is unexpected, so the engine's state cannot be trusted: code `crashed`. */
export function toWire(error: unknown): WireError {
  if (isAbort(error)) return { code: "aborted", message: "The call was aborted." };
  if (isCoded(error)) return { code: error.code, message: error.message };
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { code: "crashed", message: `The engine stopped (${text}). Call again: it starts anew from the cache.` };
}

export function fromWire({ code, message }: WireError): Error {
  return code === "aborted" ? abortError() : new EmuError(code, message);
}

/** Codes after which a worker and its device can no longer be used. */
const FATAL = new Set(["device-lost", "crashed", "gpu-error", "out-of-memory", "worker"]);

export function isFatal(error: WireError): boolean {
  return FATAL.has(error.code);
}
