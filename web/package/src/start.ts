/** Starts the worker of a device. */

import { wrongWith } from "./answer.js";
import { EmuError } from "./errors.js";
import type { Link, StartWorker } from "./protocol.js";
import type { Addresses } from "./types.js";

type Device = "webgpu" | "cpu";

/**
 * One worker per device, so that only its WASM module is downloaded. Bundlers look for exactly these expressions. The names
 * differ because webpack merges workers of the same name into one file, in which both would start.
 */
const WORKERS = {
  cpu: () => new Worker(new URL("./worker-cpu.js", import.meta.url), { type: "module", name: "emu-webgpu-cpu" }),
  webgpu: () => new Worker(new URL("./worker-webgpu.js", import.meta.url), { type: "module", name: "emu-webgpu-gpu" }),
};

const LEFT_OUT =
  "Bundlers that ignore `import.meta.url` leave it out: copy the package's dist and wasm side by side and give options `worker` and `wasm`";

const FAILED = "The worker could not be started";
const ELSE = ": worker-src of the page's policy may forbid it";

/** Starts workers from the URLs given, or from the location of the package. */
export function workers(given: Addresses | undefined, base: string | undefined): StartWorker {
  return (device, receive) => {
    let worker: Worker;
    // URL of the script, unless it was renamed.
    let script: string;
    try {
      const named = addressOf(given, device, `worker-${device}.js`, base);
      script = named ?? new URL(`worker-${device}.js`, home()).href;
      const foreign = /^https?:/.test(script) && new URL(script).origin !== location.origin;
      const name = "emu-webgpu";
      if (foreign) worker = startForeign(script);
      else worker = named ? new Worker(named, { type: "module", name }) : WORKERS[device]();
    } catch (cause) {
      if (cause instanceof EmuError) throw cause;
      throw new EmuError("worker", `${FAILED} (${String(cause)}). ${LEFT_OUT}.`, { cause });
    }
    const explain = (sure?: boolean) =>
      void whyNot(script).then((why) => {
        if (!why && sure) return;
        const message = `${FAILED}${why ?? ELSE}. ${LEFT_OUT}.`;
        receive({ type: "fatal", error: { code: "worker", message } });
      });
    // Firefox reports nothing if an import of a worker fails.
    const silent = setTimeout(explain, 5000, true);
    worker.onmessage = ({ data }) => {
      clearTimeout(silent);
      receive(data);
    };
    // The script is missing, or the worker could not report an error itself.
    worker.onerror = (event) => {
      event.preventDefault();
      if (event.message) {
        const message = `The worker stopped (${event.message}). Call again: it starts anew from the cache.`;
        receive({ type: "fatal", error: { code: "crashed", message } });
      } else explain();
    };
    return {
      post: (message) => worker.postMessage(message),
      terminate: () => {
        clearTimeout(silent);
        worker.terminate();
      },
    } satisfies Link;
  };
}

/** URL of a device's file: in the folder given, or the URL itself if it is a file. @throws {EmuError} `bad-request` */
export function addressOf(
  given: Addresses | undefined,
  device: Device,
  file: string,
  base: string | undefined,
): string | undefined {
  if (given === undefined) return undefined;
  const one = typeof given === "string" || given instanceof URL ? given : given[device];
  if (one === undefined) return undefined;
  try {
    const found = new URL(one, base);
    // A file if it looks like one, otherwise a folder.
    if (found.protocol === "blob:" || found.protocol === "data:" || /\.(m?js|wasm)$/.test(found.pathname)) return found.href;
    found.pathname = found.pathname.replace(/\/?$/, `/${file}`);
    return found.href;
  } catch (cause) {
    const what = `${String(one)} is not an address. Give the URL of the folder that holds ${file}, or of the file.`;
    throw new EmuError("bad-request", what, { cause });
  }
}

/** URL of this script. Not in the form that bundlers look for: they would take it for a file. */
function home(): string {
  const { url } = import.meta;
  if (!url) throw new EmuError("worker", `The page's bundle is no ES module: nothing is beside it. ${LEFT_OUT}.`);
  return url;
}

/** Browsers start no workers from other origins (a CDN), but a worker may import scripts from there. */
function startForeign(script: string): Worker {
  const local = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  const worker = new Worker(local, { type: "module", name: "emu-webgpu" });
  worker.addEventListener("message", () => URL.revokeObjectURL(local), { once: true });
  return worker;
}

/** Finds out what is wrong with the worker's script, or with the script of its WASM module. */
async function whyNot(script: string): Promise<string | undefined> {
  if (!/^https?:/.test(script)) return "";
  let why = await wrongWith(script, fetch);
  if (!why) {
    const text = await fetch(script).then((response) => response.text());
    const glue = /["']([^"']*emu_web\.js)["']/.exec(text)?.[1];
    if (glue) why = await wrongWith(new URL(glue, script).href, fetch);
  }
  return why ? `: ${why}` : undefined;
}
