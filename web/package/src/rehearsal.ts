/** Rehearsals: which requests share their pipelines, and how short a rehearsal can be. */

import type { WasmDrawOptions, WasmEvent, WasmRequest } from "./wasm.js";

/** Tokens after which nothing new is dispatched: two steps are dispatched kernel by kernel, the third is recorded. */
const TOKENS = 3;
/** Denoising steps after which nothing new is dispatched: the first, one that uses the state of the first, and the last. */
const STEPS = 3;

/** The same request with fewer steps. It needs the same pipelines. */
export function shortened(request: WasmRequest): WasmRequest {
  return request.task === "image" ? { ...request, draw: fewSteps(request.draw) } : request;
}

function fewSteps(draw: WasmDrawOptions): WasmDrawOptions {
  return { ...draw, steps: STEPS, previewEvery: draw.previewEvery ? 1 : 0 };
}

/** Whether a rehearsal can stop after this event. It cannot go on if a component would have to be loaded. */
export function enough(request: WasmRequest, event: WasmEvent): boolean {
  return event.type === "need" || (event.type === "decode" && request.task !== "image" && event.tokens >= TOKENS);
}

/** Cache key of a request: requests of one kind need the same pipelines, except for a few that depend on the prompt length. */
export function kindOf(request: WasmRequest, pictures: number): string {
  const how: unknown[] = [request.task, Math.min(pictures, 2)];
  if (request.task === "image") {
    how.push({ ...fewSteps(request.draw), negative: request.draw.negative !== undefined });
  } else if (request.task !== "embed") {
    const { text } = request;
    how.push({ ...text, stop: 0, n: 0, logitBias: !!text.logitBias }, request.task === "chat" && request.images);
  }
  return JSON.stringify(how);
}
