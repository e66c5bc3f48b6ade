/** Event loop, abort and timer helpers. */

import { abortError } from "./errors.js";

const channel = typeof setImmediate === "function" ? null : new MessageChannel();
const waiting: (() => void)[] = [];
if (channel) channel.port1.onmessage = () => waiting.shift()?.();

/** Yields to the event loop once, so that messages arrive. A `setTimeout` would wait 4 ms; a microtask lets no message in. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (!channel) return void setImmediate(resolve);
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
}

/** Calls `then` once when a signal fires. Returns a function that removes the listener. */
export function onAbort(signal: AbortSignal | undefined, then: () => void): () => void {
  signal?.addEventListener("abort", then, { once: true });
  return () => signal?.removeEventListener("abort", then);
}

/** Waits; rejects at once when `signal` fires. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(abortError());
    };
    const timer = setTimeout(() => {
      unlisten();
      resolve();
    }, milliseconds);
    const unlisten = onAbort(signal, stop);
    if (signal?.aborted) stop();
  });
}
