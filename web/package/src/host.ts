/** The worker side: owns the module, the device, the engine and the store, and runs one job at a time. */

import { wrongWith } from "./answer.js";
import type { Source } from "./download.js";
import { abortError, EmuError, isFatal, throwIfAborted, toWire, type WireError } from "./errors.js";
import { EXPLAINED, type GpuWatch, lost } from "./gpu.js";
import { Loader } from "./loader.js";
import { COMPONENTS, parseManifest } from "./manifest.js";
import { Pace } from "./pace.js";
import { toWasmPicture } from "./pictures.js";
import type { Fault, FromWorker, Job, JobEvent, ToWorker } from "./protocol.js";
import { enough, kindOf, shortened } from "./rehearsal.js";
import { isFull, noStore, type Store } from "./store.js";
import { sleep, turn } from "./turn.js";
import type { Component, Costs, DeviceInfo, MemoryInfo } from "./types.js";
import { hasPassed, keepPassed } from "./verdicts.js";
import { VERSION } from "./version.js";
import type { Engine, WasmEvent, WasmModule, WasmPicture, WasmRequest } from "./wasm.js";

/** The environment of a host: a worker, or a Node process. */
export interface Environment {
  module: WasmModule;
  /** The module's bytes, or their URL. */
  wasm: URL | BufferSource;
  fetch: typeof fetch;
  openStore(url: string): Promise<Store>;
  watchGpu(onError: (error: WireError) => void): GpuWatch;
}

type Post = (message: FromWorker, transfer?: Transferable[]) => void;
type Task = { id: number; job: Job; controller: AbortController };

/** Components that a request needs before it starts. It asks for others when it needs them. */
const NEEDS: Record<WasmRequest["task"], readonly Component[]> = {
  chat: ["vision", "lm"],
  caption: ["vision", "lm"],
  embed: ["vision"],
  image: COMPONENTS,
};

export class Host {
  readonly #queue: Task[] = [];
  #running: Task | null = null;
  #dead = false;
  #panic = false;
  #onGpu = false;
  #crashing = false;
  readonly #gpu: GpuWatch;
  #engine: Engine | null = null;
  #loader: Loader | null = null;
  /** Kinds of requests whose pipelines are compiled. */
  readonly #rehearsed = new Set<string>();
  /** Pictures that the page is decoding, by number. */
  readonly #drawing = new Map<number, (bitmap: ImageBitmap | null) => void>();
  #asked = 0;
  /** Bytes of weights that were counted in rehearsals but not read. */
  #unread = 0;

  constructor(
    private readonly env: Environment,
    private readonly post: Post,
  ) {
    this.#gpu = env.watchGpu((error) => this.fail(error));
  }

  receive(message: ToWorker): void {
    if (message.type === "job") {
      this.#queue.push({ id: message.id, job: message.job, controller: new AbortController() });
      void this.#pump();
    } else if (message.type === "abort") {
      const waiting = this.#queue.findIndex(({ id }) => id === message.id);
      if (waiting >= 0) this.#queue.splice(waiting, 1);
      else if (this.#running?.id === message.id) this.#running.controller.abort();
    } else if (message.type === "drawn") {
      this.#drawing.get(message.ask)?.(message.bitmap);
      this.#drawing.delete(message.ask);
    } else this.#provoke(message.fault);
  }

  /** Declares this worker dead; the page starts another. */
  fail(error: WireError): void {
    // The module also panics if its device is gone, which some browsers report a little later.
    if (error.code === "crashed" && this.#onGpu) {
      if (!this.#crashing) void this.#gpu.settled().then(() => this.#die(error));
      this.#crashing = true;
    } else this.#die(error);
  }

  #die(error: WireError): void {
    if (this.#dead) return;
    this.#dead = true;
    this.post({ type: "fatal", error });
  }

  async #pump(): Promise<void> {
    if (this.#running) return;
    for (let task = this.#queue.shift(); task && !this.#dead && !this.#crashing; task = this.#queue.shift()) {
      this.#running = task;
      const { id } = task;
      this.post({ type: "started", id });
      try {
        const value = await this.#work(task);
        if (!this.#dead || task.job.type === "dispose") this.post({ type: "done", id, value });
      } catch (thrown) {
        const error = await this.#explain(toWire(thrown));
        if (isFatal(error)) this.fail(error);
        else if (!this.#dead) this.post({ type: "failed", id, error });
      }
    }
    this.#running = null;
  }

  /**
   * Finds the cause of a failed read-back. The browser reports a refused command or a lack of memory at about this time, but some
   * report a lost device only when its queue has drained. So an unexplained failure counts as a lost device.
   */
  async #explain(error: WireError): Promise<WireError> {
    if (error.code !== "device" && error.code !== "not-finite") return error;
    for (const start = performance.now(); !this.#dead && performance.now() - start < EXPLAINED;) await sleep(20);
    return error.code === "device" ? lost(error.message.split("\n")[0]!) : error;
  }

  async #work({ id, job, controller: { signal } }: Task): Promise<DeviceInfo | MemoryInfo | Costs | null> {
    const tell = (event: JobEvent) => this.#tell(id, event);
    switch (job.type) {
      case "load":
        return this.#load(job, signal, tell);
      case "run":
        await this.#run(job, signal, tell);
        return null;
      case "memory":
        return this.#ready().engine.memory();
      case "costs": {
        const { moved, token } = this.#ready().engine.weights();
        return { ...this.#gpu.counts(), weightBytes: moved - this.#unread, tokenWeightBytes: token };
      }
      case "idle":
        return null;
      case "dispose":
        // From here on, the device's loss is expected and not reported.
        this.#dead = true;
        this.#engine?.free();
        this.#gpu.destroy();
        return null;
    }
  }

  async #load(
    job: Extract<Job, { type: "load" }>,
    signal: AbortSignal,
    tell: (event: JobEvent) => void,
  ): Promise<DeviceInfo> {
    const { module, fetch } = this.env;
    const wasm = job.wasm === undefined ? this.env.wasm : new URL(job.wasm);
    try {
      await module.default({ module_or_path: wasm });
    } catch (cause) {
      throw await notStarted(cause, wasm, fetch);
    }
    // After a panic, awaited promises stay pending forever, so the module reports the panic to its host.
    module.onPanic?.((message) => this.fail(toWire(new Error(message))));
    const version = module.version();
    if (version !== VERSION) {
      throw new EmuError(
        "version",
        `The WASM module is of version ${version}, the package of ${VERSION}. Install emu-webgpu anew.`,
      );
    }
    const device = await module.open();
    this.#onGpu = device.kind === "webgpu";
    const invocations = this.#gpu.subgroups();
    if (invocations > 0) module.subgroups?.(invocations);
    throwIfAborted(signal);
    const adapter = this.#gpu.adapter();
    if (!job.cache || !(await hasPassed(device.kind, adapter))) {
      await module.selfTest(async (done, total) => {
        tell({ phase: "compile", done, total });
        await turn();
        return !signal.aborted;
      });
      throwIfAborted(signal);
      // The browser may have reported an error meanwhile.
      if (job.cache && !this.#dead) await keepPassed(device.kind, adapter);
    }

    const source: Source = {
      pack: job.pack,
      store: noStore,
      fetch,
      newHasher: () => new module.Hasher(),
      onStoreFailure: (error) => {
        if (source.store !== noStore) tell(cacheWarning(error));
        source.store = noStore;
      },
    };
    if (job.cache) {
      try {
        source.store = await this.env.openStore(job.pack.url);
      } catch (error) {
        tell(cacheWarning(error));
      }
    }
    this.#loader = new Loader(parseManifest(job.manifest), source);
    await this.#loader.keepManifest(job.manifest, signal);
    const tokenizer = await this.#loader.tokenizer(signal);
    this.#engine = new module.Engine(new TextEncoder().encode(job.manifest), tokenizer);
    await this.#loader.load(job.components, this.#engine, signal, tell);
    return device;
  }

  async #run(
    { request, pictures }: Extract<Job, { type: "run" }>,
    signal: AbortSignal,
    tell: (event: JobEvent) => void,
  ): Promise<void> {
    const { engine, loader } = this.#ready();
    // An aborted rehearsal may have left pipelines pending.
    await this.#compiled(signal, tell);
    await loader.load(NEEDS[request.task], engine, signal, tell);
    const readable: WasmPicture[] = [];
    for (const picture of pictures) readable.push(await toWasmPicture(picture, this.env.fetch, signal, (bytes) => this.#drawnByPage(bytes)));
    throwIfAborted(signal);
    const kind = kindOf(request, readable.length);
    if (this.#onGpu && !this.#rehearsed.has(kind)) {
      if (await this.#rehearse(shortened(request), readable, signal)) this.#rehearsed.add(kind);
      await this.#compiled(signal, tell);
    }
    const pace = new Pace();
    const onEvent = async (event: WasmEvent): Promise<boolean> => {
      pace.take(event);
      if (event.type === "need") await loader.load([event.component], engine, signal, tell);
      else tell(event.type === "usage" ? { ...event, ...pace.end(event) } : event);
      await turn();
      if (this.#panic) this.#trap();
      return !signal.aborted;
    };
    try {
      await engine.run(request, readable, onEvent);
    } catch (error) {
      if (signal.aborted && toWire(error).code === "aborted") throw abortError();
      throw error;
    }
  }

  /**
   * Rehearses a request, to compile the pipelines that it needs. Errors of the request are reported by the real run. Returns
   * whether the rehearsal was complete.
   */
  async #rehearse(request: WasmRequest, pictures: WasmPicture[], signal: AbortSignal): Promise<boolean> {
    const { engine } = this.#ready();
    // `memory()` flushes the module's queued dispatches: those from before the rehearsal are executed, and none of the rehearsal
    // are left in the queue after it.
    engine.memory();
    const { moved } = engine.weights();
    const end = this.#gpu.rehearse();
    let over = false;
    try {
      const onEvent = async (event: WasmEvent): Promise<boolean> => {
        await turn();
        if (this.#panic) this.#trap();
        over = enough(request, event);
        return !over && !signal.aborted;
      };
      try {
        await engine.run(request, pictures, onEvent, true);
        over = true;
      } catch (error) {
        if (isFatal(toWire(error))) throw error;
      }
      engine.memory();
    } finally {
      end();
    }
    this.#unread += engine.weights().moved - moved;
    throwIfAborted(signal);
    return over;
  }

  /** Asks the page to decode a picture. */
  #drawnByPage(bytes: Uint8Array): Promise<ImageBitmap | null> {
    return new Promise((resolve) => {
      const ask = ++this.#asked;
      this.#drawing.set(ask, resolve);
      this.post({ type: "draw", ask, bytes });
    });
  }

  /** Waits for pending pipelines. */
  async #compiled(signal: AbortSignal, tell: (event: JobEvent) => void): Promise<void> {
    await this.#gpu.compiled((done, total) => tell({ phase: "compile", done, total }), signal);
    // A pipeline was refused, which has been reported.
    if (this.#dead) throw abortError();
  }

  #ready(): { engine: Engine; loader: Loader } {
    const [engine, loader] = [this.#engine, this.#loader];
    if (!engine || !loader) throw new EmuError("disposed", "The model is not loaded. Load it first.");
    return { engine, loader };
  }

  #tell(id: number, event: JobEvent): void {
    let pixels: { rgba: Uint8ClampedArray } | undefined;
    if ("type" in event) pixels = event.type === "image" ? event : event.type === "denoise" ? event.preview : undefined;
    // Only pixels with their own buffer can be transferred; a view into the WASM memory is cloned.
    const buffer = pixels?.rgba.buffer as ArrayBuffer | undefined;
    this.post({ type: "event", id, event }, buffer && buffer.byteLength === pixels?.rgba.byteLength ? [buffer] : []);
  }

  #provoke(fault: Fault): void {
    if (fault === "device-lost") this.#gpu.destroy();
    else if (this.#running?.job.type === "run") this.#panic = true;
    else {
      try {
        this.#trap();
      } catch (error) {
        this.fail(toWire(error));
      }
    }
  }

  /** Traps like a panic in Rust. */
  #trap(): void {
    this.env.module.panic?.();
    // A module of one function: (func (export "f") unreachable).
    const module = [
      0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 5, 1, 3, 0, 0, 11,
    ];
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(module)));
    (exports.f as () => void)();
  }
}

/** Finds out why the module did not start. */
async function notStarted(cause: unknown, wasm: URL | BufferSource, fetch: typeof globalThis.fetch): Promise<EmuError> {
  const failed = (why: string, advice: string) =>
    new EmuError("worker", `The WASM module could not be started: ${why}. ${advice}.`, { cause });
  try {
    // The smallest valid module.
    new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0));
  } catch {
    return failed(
      "the content security policy forbids WebAssembly",
      "Add 'wasm-unsafe-eval' to script-src in the policy of the page, and in that of the worker's script",
    );
  }
  const why = wasm instanceof URL ? await wrongWith(wasm.href, fetch) : null;
  return failed(
    why ?? String(cause),
    "Check that the package's wasm folder is served whole, or give the option `wasm`",
  );
}

function cacheWarning(error: unknown): JobEvent {
  if (isFull(error)) {
    const message = "The browser's storage is full, so what is fetched now is not kept for the next visit.";
    return { phase: "warning", code: "cache-full", message };
  }
  const why = error instanceof Error ? error.message : String(error);
  return {
    phase: "warning",
    code: "cache-unavailable",
    message: `The browser's storage cannot be used (${why}), so nothing is kept for the next visit.`,
  };
}
