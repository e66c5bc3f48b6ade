/** The code that both workers share: a host behind `postMessage`. */

import { toWire } from "./errors.js";
import { watchGpu } from "./gpu.js";
import { Host } from "./host.js";
import { openStorage } from "./storage.js";
import type { ToWorker } from "./protocol.js";
import type { WasmModule } from "./wasm.js";

export function serve(module: unknown, wasm: URL): void {
  const scope = globalThis as unknown as DedicatedWorkerGlobalScope;
  const host = new Host(
    {
      module: module as WasmModule,
      wasm,
      fetch: scope.fetch.bind(scope),
      openStore: (url) => openStorage(url, true),
      watchGpu,
    },
    (message, transfer = []) => scope.postMessage(message, transfer),
  );
  scope.onmessage = ({ data }: MessageEvent<ToWorker>) => host.receive(data);
  scope.addEventListener("error", (event) => {
    // Reported by the host, which knows more about the error than the page would.
    event.preventDefault();
    host.fail(toWire(event.error ?? new Error(event.message)));
  });
  scope.addEventListener("unhandledrejection", ({ reason }) => host.fail(toWire(reason)));
}
