/** The page side: pending calls, and the replacement of a dead worker. */

import { requireSupport } from "./admission.js";
import { abortError, EmuError, fromWire, throwIfAborted, type WireError } from "./errors.js";
import type { PackAddress } from "./pack.js";
import { release } from "./pictures.js";
import type { Fault, FromWorker, Job, JobEvent, Link, StartWorker } from "./protocol.js";
import { onAbort } from "./turn.js";
import type { Component, Costs, DeviceChoice, DeviceInfo, Expected, MemoryInfo, Support, Task } from "./types.js";
import { dropVerdicts } from "./verdicts.js";

/** What a worker has to load, decided before it starts. */
export interface Admission {
  pack: PackAddress;
  manifest: string;
  support: Support;
  /** Why a request cannot run, as far as that is known without a worker; `null` if it may. */
  refuses?(task: Task, expected: Expected): string | null;
}

export interface ClientOptions {
  components: readonly Component[];
  cache: boolean;
  startWorker: StartWorker;
  /** URL of a device's WASM module; undefined: the worker's default. */
  wasm?(device: "webgpu" | "cpu"): string | undefined;
  /** Decodes pictures that workers cannot; `null` if the page cannot either. */
  draw?(bytes: Uint8Array): Promise<ImageBitmap | null>;
  /** The device that the user requested. Only with `auto` does the CPU replace a GPU that fails. */
  device: DeviceChoice;
  /** Checks the machine again: after a lost device there may be another adapter, or none. */
  admit(choice: DeviceChoice): Promise<Admission>;
}

export interface CallHooks {
  signal?: AbortSignal | undefined;
  retry?: boolean | undefined;
  onEvent?: ((event: JobEvent) => void) | undefined;
}

interface Call {
  id: number;
  job: Job;
  hooks: CallHooks;
  started: boolean;
  restarts: number;
  settle(error: Error | null, value?: DeviceInfo | MemoryInfo | Costs | null): void;
}

/** Maximum restarts of a call with `retry`. */
const RESTARTS = 2;
/** Milliseconds that a worker has to free its resources on dispose. */
const FAREWELL = 1000;
/** Error codes of a load after which `auto` falls back to the CPU. */
const GPU_FAILED = new Set(["no-adapter", "self-test", "device-lost", "gpu-error", "out-of-memory"]);

export class Client {
  #admission: Admission;
  #info: DeviceInfo | null = null;
  #link: Link | null = null;
  /** The load that calls wait for. */
  #opening: Promise<void> | null = null;
  readonly #calls = new Map<number, Call>();
  #nextId = 1;
  #disposed = false;
  /** Resolves when the verdicts on a device that failed are dropped. */
  #dropped: Promise<void> | undefined;

  constructor(
    admission: Admission,
    private readonly options: ClientOptions,
  ) {
    this.#admission = admission;
  }

  get support(): Support {
    return this.#admission.support;
  }

  get device(): DeviceInfo {
    return this.#info!;
  }

  /** @throws {EmuError} `too-large` if a request cannot run, before anything is loaded for it. */
  check(task: Task, expected: Expected): void {
    const why = this.#admission.refuses?.(task, expected);
    if (why) throw new EmuError("too-large", why);
  }

  /** The first load. An abort terminates the worker, which holds nothing else yet. */
  async open(hooks: CallHooks): Promise<void> {
    throwIfAborted(hooks.signal);
    const unlisten = onAbort(hooks.signal, () => this.#end(abortError()));
    try {
      await this.#ready(hooks);
    } catch (error) {
      this.#end(error as Error);
      throw error;
    } finally {
      unlisten();
    }
  }

  /** Runs a job after the jobs before it. */
  async call(job: Job, hooks: CallHooks = {}): Promise<DeviceInfo | MemoryInfo | Costs | null> {
    if (this.#disposed) throw disposedError();
    throwIfAborted(hooks.signal);
    return new Promise((resolve, reject) => {
      const call = this.#register(job, hooks, (error, value) => {
        unlisten();
        if (error) reject(error);
        else resolve(value ?? null);
      });
      const unlisten = onAbort(hooks.signal, () => this.#stop(call, abortError()));
      void this.#send(call);
    });
  }

  /** Aborts every call, and waits until the worker is idle. */
  async reset(): Promise<void> {
    if (this.#disposed) throw disposedError();
    this.#stopAll(abortError());
    await this.call({ type: "idle" });
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const link = this.#link;
    this.#stopAll(disposedError());
    if (!link) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, FAREWELL);
      const farewell = this.#register({ type: "dispose" }, {}, () => {
        clearTimeout(timer);
        resolve();
      });
      link.post({ type: "job", id: farewell.id, job: farewell.job });
    });
    this.#calls.clear();
    this.#end(disposedError());
  }

  provoke(fault: Fault): void {
    this.#link?.post({ type: "provoke", fault });
  }

  #stopAll(error: Error): void {
    for (const call of [...this.#calls.values()]) this.#stop(call, error);
  }

  /** Rejects a call at once; the worker stops at its next step. */
  #stop(call: Call, error: Error): void {
    call.settle(error);
    this.#link?.post({ type: "abort", id: call.id });
  }

  #register(job: Job, hooks: CallHooks, done: Call["settle"]): Call {
    const id = this.#nextId++;
    const call: Call = {
      id,
      job,
      hooks,
      started: false,
      restarts: 0,
      settle: (error, value) => {
        if (!this.#calls.delete(id)) return;
        if (job.type === "run") release(job.pictures);
        done(error, value);
      },
    };
    this.#calls.set(id, call);
    return call;
  }

  /** Posts a call once a worker has loaded. Messages keep their order. */
  async #send(call: Call): Promise<void> {
    try {
      await this.#ready({ onEvent: (event) => this.#tellAll(event) });
      if (this.#calls.has(call.id)) this.#link!.post({ type: "job", id: call.id, job: call.job });
    } catch (error) {
      call.settle(error instanceof DOMException && error.name === "DataCloneError" ? unsendable(error) : (error as Error));
    }
  }

  #ready(hooks: CallHooks): Promise<void> {
    if (!this.#opening) {
      const opening = this.#load(hooks).catch((error) => {
        if (this.#opening === opening) this.#opening = null;
        throw error;
      });
      this.#opening = opening;
    }
    return this.#opening;
  }

  /** Starts a worker and lets it load. If the GPU fails and the device is `auto`, starts another worker for the CPU. */
  async #load(hooks: CallHooks): Promise<void> {
    // An earlier worker died: the adapter may have changed.
    const { device, admit } = this.options;
    if (this.#info) {
      await this.#dropped;
      this.#admission = await admit(device);
    }
    for (;;) {
      if (this.#disposed) throw disposedError();
      const { support } = this.#admission;
      requireSupport(support, device);
      try {
        const info = await this.#start(support.device!, hooks);
        // Browsers report less about an adapter to the module than to the page.
        this.#info = { ...info, name: info.name || (support.adapter?.name ?? "") };
        return;
      } catch (error) {
        const failed = error instanceof EmuError && GPU_FAILED.has(error.code) && support.device === "webgpu";
        if (!failed || device !== "auto" || this.#disposed) throw error;
        const admission = await admit("cpu");
        if (!admission.support.supported) throw error;
        this.#admission = admission;
        this.#warn(hooks, "gpu-failed", `WebGPU cannot be used (${error.message}), so the CPU is used.`);
      }
    }
  }

  #start(device: "webgpu" | "cpu", hooks: CallHooks): Promise<DeviceInfo> {
    const { pack, manifest } = this.#admission;
    const { components, cache, startWorker, wasm } = this.options;
    const job: Job = { type: "load", pack, manifest, components, cache, wasm: wasm?.(device) };
    return new Promise((resolve, reject) => {
      const call = this.#register(job, { onEvent: hooks.onEvent }, (error, value) => {
        if (error) {
          // A worker that failed to load holds nothing worth keeping.
          this.#drop();
          reject(error);
        } else resolve(value as DeviceInfo);
      });
      // Messages of a replaced worker are ignored.
      try {
        const link: Link = startWorker(device, (message) => this.#link === link && this.#receive(message));
        this.#link = link;
        link.post({ type: "job", id: call.id, job: call.job });
      } catch (error) {
        call.settle(error as Error);
      }
    });
  }

  #receive(message: FromWorker): void {
    if (message.type === "fatal") return this.#replace(message.error);
    if (message.type === "draw") return void this.#draw(message.ask, message.bytes);
    const call = this.#calls.get(message.id);
    if (!call) return;
    if (message.type === "started") call.started = true;
    else if (message.type === "done") call.settle(null, message.value);
    else if (message.type === "failed") {
      // Numbers that are none may come from a device that computes wrongly by now.
      if (message.error.code === "not-finite") this.#dropped = dropVerdicts();
      call.settle(fromWire(message.error));
    } else {
      this.#noteWarning(message.event);
      call.hooks.onEvent?.(message.event);
    }
  }

  async #draw(ask: number, bytes: Uint8Array): Promise<void> {
    const link = this.#link;
    const bitmap = (await this.options.draw?.(bytes)) ?? null;
    if (this.#link === link) link?.post({ type: "drawn", ask, bitmap });
    bitmap?.close();
  }

  /** The worker is dead. The running call fails or restarts; queued calls go to the next worker. */
  #replace(error: WireError): void {
    this.#drop();
    this.#dropped = dropVerdicts();
    const curable = error.code === "device-lost" || error.code === "crashed";
    for (const call of [...this.#calls.values()]) {
      const again = curable && call.hooks.retry && call.restarts < RESTARTS;
      if (call.job.type === "load" || (call.started && !again)) {
        call.settle(fromWire(error));
        continue;
      }
      if (call.started) {
        call.restarts += 1;
        call.started = false;
        this.#warn(call.hooks, "restarted", error.message);
      }
      void this.#send(call);
    }
  }

  #drop(): void {
    this.#link?.terminate();
    this.#link = null;
    this.#opening = null;
  }

  #end(error: Error): void {
    this.#disposed = true;
    for (const call of [...this.#calls.values()]) call.settle(error);
    this.#drop();
  }

  #tellAll(event: JobEvent): void {
    for (const { job, hooks } of [...this.#calls.values()]) if (job.type !== "load") hooks.onEvent?.(event);
  }

  #warn(hooks: CallHooks, code: string, message: string): void {
    const event: JobEvent = { phase: "warning", code, message };
    this.#noteWarning(event);
    hooks.onEvent?.(event);
  }

  #noteWarning(event: JobEvent): void {
    if (!("phase" in event) || event.phase !== "warning" || event.code === "restarted") return;
    const { reasons } = this.support;
    if (!reasons.includes(event.message)) reasons.push(event.message);
  }
}

/** Options are numbers, strings and booleans. Anything else, such as a function, cannot be cloned. */
function unsendable(cause: DOMException): EmuError {
  const what = `The call holds what cannot be sent to the worker (${cause.message}). Give options as documented.`;
  return new EmuError("bad-request", what, { cause });
}

function disposedError(): EmuError {
  return new EmuError("disposed", "This Emu was disposed of. Load another.");
}
