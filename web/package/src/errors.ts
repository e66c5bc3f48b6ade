/** Errors: one class, a stable `code`, and the way across `postMessage`. */

/** What can go wrong, by stable name. The engine's own codes (`missing-tensor`, `too-long`, ...) come as they are. */
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

/** An error of this package: one sentence on what is wrong, one on what to do. */
export class EmuError extends Error {
  override readonly name = "EmuError";

  constructor(
    /** A stable name to branch on. */
    readonly code: EmuErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** An error as it travels. */
export interface WireError {
  code: string;
  message: string;
}

/** What an aborted call rejects with. */
export function abortError(): DOMException {
  return new DOMException("The call was aborted.", "AbortError");
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Throws if `signal` has fired: always an `AbortError`, whatever reason the caller gave. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError();
}

/** Whether it carries a code: an {@link EmuError}, or what the WASM module throws. */
function isCoded(error: unknown): error is WireError {
  const { code, message } = (error ?? {}) as Partial<WireError>;
  return typeof code === "string" && typeof message === "string" && !(error instanceof DOMException);
}

/** Any error, ready to travel. What has no code was not foreseen, so that the state behind it cannot be trusted: `crashed`. */
export function toWire(error: unknown): WireError {
  if (isAbort(error)) return { code: "aborted", message: "The call was aborted." };
  if (isCoded(error)) return { code: error.code, message: error.message };
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { code: "crashed", message: `The engine stopped (${text}). Call again: it starts anew from the cache.` };
}

export function fromWire({ code, message }: WireError): Error {
  return code === "aborted" ? abortError() : new EmuError(code, message);
}

/** Codes after which a worker and its device are of no more use. */
const FATAL = new Set(["device-lost", "crashed", "gpu-error", "out-of-memory", "worker"]);

export function isFatal(error: WireError): boolean {
  return FATAL.has(error.code);
}
