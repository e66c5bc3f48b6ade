/** Requests run for the pipelines that they ask for: which of them ask for the same, and how little of one is enough. */

import type { WasmDrawOptions, WasmEvent, WasmRequest } from "./wasm.js";

/** Tokens after which nothing new is launched: two turns of the model are launched one by one, the third is recorded. */
const TOKENS = 3;
/** Steps of a drawing after which nothing new is launched: the first, one with what the first left, the last. */
const STEPS = 3;

/** A request that asks for the same pipelines with fewer steps. */
export function shortened(request: WasmRequest): WasmRequest {
  return request.task === "image" ? { ...request, draw: fewSteps(request.draw) } : request;
}

function fewSteps(draw: WasmDrawOptions): WasmDrawOptions {
  return { ...draw, steps: STEPS, previewEvery: draw.previewEvery ? 1 : 0 };
}

/** Whether a rehearsal that tells this event need not go on. Where something would have to be loaded first, it cannot. */
export function enough(request: WasmRequest, event: WasmEvent): boolean {
  return event.type === "need" || (event.type === "decode" && request.task !== "image" && event.tokens >= TOKENS);
}

/** Requests of one kind ask for the same pipelines, but for a few that depend on the length of a prompt. */
export function kindOf(request: WasmRequest, pictures: number): string {
  const how: unknown[] = [request.task, Math.min(pictures, 2)];
  if (request.task === "image") {
    how.push({ ...fewSteps(request.draw), negative: request.draw.negative !== undefined });
  } else if (request.task !== "embed") how.push(request.text, request.task === "chat" && request.images);
  return JSON.stringify(how);
}
