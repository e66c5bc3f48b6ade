/** What either WASM module (`wasm/cpu/`, `wasm/webgpu/`) exports, as the worker uses it. Errors are thrown as objects `{ code, message }`. */

/** A picture as the engine takes it: encoded bytes, or pixels. */
export type WasmPicture = Uint8Array | { rgba: Uint8ClampedArray; width: number; height: number };

export interface WasmDevice {
  kind: "webgpu" | "cpu";
  name: string;
  software: boolean;
}

/** What `Engine.run` takes. Pictures are indices into the array given beside it. */
export type WasmPart = { text: string } | { image: number } | { video: number[] };
export interface WasmTextOptions {
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  noRepeatNgram?: number;
  beams?: number;
  lengthPenalty?: number;
}
export interface WasmDrawOptions {
  width?: number;
  height?: number;
  steps?: number;
  scheduler?: "pndm" | "ddim" | "dpm++";
  guidance?: number;
  negative?: string;
  previewEvery?: number;
}
export type WasmRequest =
  | {
      task: "chat";
      messages: { role: "system" | "user" | "assistant"; parts: WasmPart[] }[];
      text: WasmTextOptions;
      images: boolean;
      draw: WasmDrawOptions;
      seed: number;
    }
  | { task: "caption"; text: WasmTextOptions; seed: number }
  | { task: "image"; parts: WasmPart[]; draw: WasmDrawOptions; seed: number }
  | { task: "embed" };

/** What the engine tells while it runs. Each is one step of work. */
export type WasmEvent =
  /** A component is needed that is not loaded (a picture begins, a checker exists): load it (`shard`, `finish`) before answering `true`. */
  | { type: "need"; component: "vision" | "lm" | "decoder" | "safety" }
  | { type: "prefill"; tokens: number }
  | { type: "decode"; tokens: number }
  | { type: "text"; text: string }
  | {
      type: "denoise";
      step: number;
      steps: number;
      preview?: { rgba: Uint8ClampedArray; width: number; height: number };
    }
  | { type: "decode-image" }
  | { type: "image"; rgba: Uint8ClampedArray; width: number; height: number; seed: number; flagged: boolean | null }
  | { type: "embeddings"; rows: Float32Array[] }
  | { type: "usage"; promptTokens: number; tokens: number; finish: "end" | "length" };

export interface Engine {
  /** Bytes that lie in the device's memory for the weights of each component, once loaded. */
  resident(): { [component: string]: number };
  /** Takes a verified shard: uploads the tensors in it. The bytes are copied and dropped before it returns. */
  shard(file: string, bytes: Uint8Array): void;
  /** Checks that every tensor of the component is here and builds it. Throws `missing-tensor` otherwise. */
  finish(component: string): Promise<void>;
  /** Drops a component's weights. */
  unload(component: string): void;
  loaded(component: string): boolean;
  /** Runs a request. `onEvent` is awaited after every step: `false` stops there (the promise rejects with code `aborted`). */
  run(request: WasmRequest, pictures: WasmPicture[], onEvent: (event: WasmEvent) => Promise<boolean>): Promise<void>;
  /** Bytes allocated on the device, and of the WASM memory. */
  memory(): { device: number; wasm: number };
  /** Bytes of weights that products have read so far, and those that a token reads. */
  weights(): { moved: number; token: number };
  free(): void;
}

export interface WasmModule {
  default(input: {
    module_or_path: URL | Response | Promise<Response> | BufferSource | WebAssembly.Module;
  }): Promise<unknown>;
  /** Version of the crate. */
  version(): string;
  /** Opens the module's device. Once per instance. */
  open(): Promise<WasmDevice>;
  /** Has this instance say that it panics, with the message, before it traps: it is of no more use, and what was awaited never resolves. */
  onPanic?(tell: (message: string) => void): void;
  /** Says how many invocations a subgroup of the opened device has at least. Of the module for WebGPU. */
  subgroups?(invocations: number): void;
  /** Runs every kind of kernel on small known input. Throws `self-test` naming the operation that is wrong. */
  selfTest(onProgress: (done: number, total: number) => Promise<boolean>): Promise<void>;
  Hasher: new () => { update(bytes: Uint8Array): void; hex(): string; free(): void };
  Engine: new (manifest: Uint8Array, tokenizer: Uint8Array) => Engine;
  /** Panics, for tests. Where a module has none, a trap of the worker's own stands in. */
  panic?(): void;
}
