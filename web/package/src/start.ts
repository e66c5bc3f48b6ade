/** Starts the worker of a device. */

import type { FromWorker, Link } from "./protocol.js";

/** Each device has its own worker, so that only its WASM module is downloaded. Bundlers look for exactly these forms. */
const WORKERS = {
  cpu: () => new Worker(new URL("./worker-cpu.js", import.meta.url), { type: "module", name: "emu-webgpu" }),
  webgpu: () => new Worker(new URL("./worker-webgpu.js", import.meta.url), { type: "module", name: "emu-webgpu" }),
};

export function startWorker(device: "webgpu" | "cpu", receive: (message: FromWorker) => void): Link {
  const worker = isForeign() ? startForeign(device) : WORKERS[device]();
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => receive(data);
  // A script that is not there, or an error that the worker could not tell of itself.
  worker.onerror = (event) => {
    event.preventDefault();
    const why = event.message ? ` (${event.message})` : "";
    const message = `The worker could not be started or stopped${why}. Check that the package's dist folder is served whole.`;
    receive({ type: "fatal", error: { code: event.message ? "crashed" : "worker", message } });
  };
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => worker.terminate(),
  };
}

/** Whether the package comes from another origin (a CDN), from which browsers start no workers. */
function isForeign(): boolean {
  const { protocol, origin } = new URL(import.meta.url);
  return protocol.startsWith("http") && origin !== location.origin;
}

function startForeign(device: "webgpu" | "cpu"): Worker {
  // Not in the form that bundlers look for: they serve from the page's own origin.
  const script = import.meta.url.replace(/[^/]*$/, `worker-${device}.js`);
  const local = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  const worker = new Worker(local, { type: "module", name: "emu-webgpu" });
  worker.addEventListener("message", () => URL.revokeObjectURL(local), { once: true });
  return worker;
}
