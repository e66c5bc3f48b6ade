/** Makes a controller abort when a signal does. Returns a function that removes the listener. */
export function follow(controller: AbortController, signal: AbortSignal | null | undefined): () => void {
  const abort = () => controller.abort();
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  return () => signal?.removeEventListener("abort", abort);
}
