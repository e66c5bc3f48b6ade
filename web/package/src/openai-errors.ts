/** Errors in the shape of the classes of the package `openai`. `code` is the stable code of emu-webgpu. */

import { type EmuError, isAbort } from "./errors.js";

/** The fields of OpenAI's `APIError`. */
export class APIError extends Error {
  /** The status with which a server would have answered; `undefined` if the network failed or the call was aborted. */
  readonly status: number | undefined;
  readonly headers = undefined;
  /** The error as the body of a response would have it. */
  readonly error: { message: string; type: string; param: string | null; code: string | null } | undefined;
  readonly code: string | null | undefined;
  /** The parameter that was refused. */
  readonly param: string | null | undefined;
  readonly type: string | undefined;
  readonly requestID = undefined;

  constructor(status: number | undefined, error: APIError["error"], message?: string, options?: ErrorOptions) {
    super(message ?? [status, error?.message].filter(Boolean).join(" "), options);
    this.status = status;
    this.error = error;
    this.code = error?.code;
    this.param = error?.param;
    this.type = error?.type;
  }
}

/** The arguments are wrong, or ask for what is not possible here. */
export class BadRequestError extends APIError {}
/** The model that was asked for is not the loaded one. */
export class NotFoundError extends APIError {}
/** The device, the worker or the model failed. */
export class InternalServerError extends APIError {}
/** A part of the pack could not be fetched. */
export class APIConnectionError extends APIError {}
/** The call was aborted. */
export class APIUserAbortError extends APIError {
  constructor(options?: ErrorOptions) {
    super(undefined, undefined, "Request was aborted.", options);
  }
}

/** Codes of calls that cannot succeed as they are. The engine has further ones, which start with their topic. */
const REFUSED = /^(bad-(request|image|video|option)|no-decoder|too-(large|long)|unsupported|(prompt|image|video|picture|token)-.*)$/;
/** Codes of a fetch that failed. */
const NETWORK = new Set(["fetch", "not-found", "short-file", "long-file", "wrong-hash"]);

/** Refuses a parameter in two sentences: what is wrong, and what to do. */
export function refuse(param: string | null, what: string, advice: string): BadRequestError {
  return new BadRequestError(400, body(`${what}. ${advice}.`, "invalid_request_error", "bad-request", param));
}

export function modelNotFound(asked: string, loaded: string): NotFoundError {
  const message = `The model ${asked} is not loaded, but ${loaded} is. Use that name, or leave \`model\` out.`;
  return new NotFoundError(404, body(message, "invalid_request_error", "model_not_found", "model"));
}

/** Any error of a call as one of these classes. */
export function toApiError(error: unknown): Error {
  if (error instanceof APIError) return error;
  const options = { cause: error };
  if (isAbort(error)) return new APIUserAbortError(options);
  const coded = (error ?? {}) as Partial<EmuError>;
  const [code, message] = coded.name === "EmuError" ? [coded.code!, coded.message!] : ["crashed", String(error)];
  if (NETWORK.has(code)) return new APIConnectionError(undefined, body(message, "connection_error", code), undefined, options);
  if (REFUSED.test(code)) return new BadRequestError(400, body(message, "invalid_request_error", code), undefined, options);
  // What the next call may not meet again is a server that is unavailable for a moment.
  const status = code === "device-lost" || code === "crashed" ? 503 : 500;
  return new InternalServerError(status, body(message, "server_error", code), undefined, options);
}

function body(message: string, type: string, code: string, param: string | null = null) {
  return { message, type, param, code };
}
