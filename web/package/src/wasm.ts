/** Exports of both WASM modules (`wasm/cpu/`, `wasm/webgpu/`) that the worker uses. Errors are thrown as `{ code, message }`. */

import type { TokenLogprobs } from "./types.js";

/** A picture as input of the engine: encoded bytes, or pixels. */
export type WasmPicture = Uint8Array | { rgba: Uint8ClampedArray; width: number; height: number };

export interface WasmDevice {
  kind: "webgpu" | "cpu";
  name: string;
  software: boolean;
}

/** The request that `Engine.run` takes. Pictures are indices into the array passed with it. */
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
  minP?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  logitBias?: Readonly<Record<number, number>>;
  stop?: readonly string[];
  /** Present if log-probabilities are wanted. */
  topLogprobs?: number;
  /** Number of answers. Each ends in `usage`. */
  n?: number;
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

/** Events of a run. Each is one step of work. */
export type WasmEvent =
  /** A component is needed that is not loaded (a picture starts, there is a safety checker): load it (`shard`, `finish`), then
   * answer `true`. */
  | { type: "need"; component: "vision" | "lm" | "decoder" | "safety" }
  | { type: "prefill"; tokens: number }
  | { type: "decode"; tokens: number }
  | { type: "text"; text: string; logprobs?: TokenLogprobs[] }
  | {
      type: "denoise";
      step: number;
      steps: number;
      preview?: { rgba: Uint8ClampedArray; width: number; height: number };
    }
  | { type: "decode-image" }
  | { type: "image"; rgba: Uint8ClampedArray; width: number; height: number; seed: number; flagged: boolean | null }
  | { type: "embeddings"; rows: Float32Array[] }
  /** `cachedTokens`: those of the prompt whose keys and values were kept from an earlier call. `prefillTokens`: those computed. */
  | {
      type: "usage";
      promptTokens: number;
      cachedTokens: number;
      prefillTokens: number;
      tokens: number;
      finish: "end" | "stop" | "length";
    };

export interface Engine {
  /** Bytes of device memory that the weights of each loaded component take. */
  resident(): { [component: string]: number };
  /** Uploads the tensors of a verified shard. The bytes are copied, and the copy is dropped before it returns. */
  shard(file: string, bytes: Uint8Array): void;
  /** Builds the component. Throws `missing-tensor` if one of its tensors was not uploaded. */
  finish(component: string): Promise<void>;
  /** Drops a component's weights. */
  unload(component: string): void;
  loaded(component: string): boolean;
  /**
   * Runs a request. `onEvent` is awaited after every step; `false` stops the run (the promise rejects with code `aborted`). A
   * `rehearsal` neither uses nor leaves anything that is kept between requests.
   */
  run(
    request: WasmRequest,
    pictures: WasmPicture[],
    onEvent: (event: WasmEvent) => Promise<boolean>,
    rehearsal?: boolean,
  ): Promise<void>;
  /** Bytes allocated on the device, and the size of the WASM memory. */
  memory(): { device: number; wasm: number };
  /** Bytes of weights that matrix products have read so far, and bytes that each token reads. */
  weights(): { moved: number; token: number };
  free(): void;
}

export interface WasmModule {
  default(input: {
    module_or_path: URL | Response | Promise<Response> | BufferSource | WebAssembly.Module;
  }): Promise<unknown>;
  /** Version of the crate. */
  version(): string;
  /** Opens the module's device. Call it once per instance. */
  open(): Promise<WasmDevice>;
  /** Calls back with the message of a panic, before the trap. The instance is then unusable; pending promises never resolve. */
  onPanic?(tell: (message: string) => void): void;
  /** Sets the minimum subgroup size of the opened device. WebGPU module only. */
  subgroups?(invocations: number): void;
  /** Tests every kind of kernel on small known inputs. Throws `self-test` with the name of the operation that failed. */
  selfTest(onProgress: (done: number, total: number) => Promise<boolean>): Promise<void>;
  Hasher: new () => { update(bytes: Uint8Array): void; hex(): string; free(): void };
  Engine: new (manifest: Uint8Array, tokenizer: Uint8Array) => Engine;
  /** Panics, for tests. If a module has none, the worker traps by itself. */
  panic?(): void;
}
