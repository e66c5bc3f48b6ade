/** Time, and what ends waiting. */

import { abortError } from "./errors.js";

const channel = typeof setImmediate === "function" ? null : new MessageChannel();
const waiting: (() => void)[] = [];
if (channel) channel.port1.onmessage = () => waiting.shift()?.();

/** Lets the event loop turn once, so that messages arrive. A `setTimeout` would wait 4 ms, a microtask lets nothing in. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (!channel) return void setImmediate(resolve);
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
}

/** Calls back when a signal fires, once; returns how to stop listening. */
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
