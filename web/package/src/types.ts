/** Types of the public API. */

/** A picture from any source that a page has. PNG, JPEG, GIF, WebP, BMP and TIFF bytes are decoded by the engine's own decoder,
 * so that results equal the native program's. Other formats that the browser supports (SVG, AVIF) are decoded by the browser.
 * Pixels are upright; transparency is composited over white. */
export type ImageSource =
  | Blob
  | ArrayBuffer
  | Uint8Array
  | ImageData
  | ImageBitmap
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLVideoElement
  /** A URL to fetch. */
  | string
  | URL;

/** One part of a message. */
export type Part =
  | { type: "text"; text: string }
  | { type: "image"; image: ImageSource }
  /** Frames of a video, in order. The model expects eight; see `framesOfVideo`. */
  | { type: "video"; frames: ImageSource[] };

/** A {@link Part} or a shorthand: a string is text (pass an image URL as a `URL` or in a `Part`), anything else is an image. */
export type Piece = Part | string | Exclude<ImageSource, string>;

/** A message: one turn of a conversation. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string | Piece[];
}

/** A pack whose files a bundler has renamed: a URL for each file, including `emu.json` and `tokenizer.json`. */
export interface PackFiles {
  /** Cache key of the pack, such as `npm:emu-webgpu-mini`. It is never fetched. */
  url: string;
  /** URL of each file, keyed by its name in the pack. */
  files: Readonly<Record<string, string>>;
}

/** Location of a pack: the URL of its folder, or the URL of each of its files. */
export type PackLocation = string | URL | PackFiles;

/** Location of the files per device: the URL of a folder with the package's layout, or one URL per device. */
export type Addresses = string | URL | { cpu?: string | URL; webgpu?: string | URL };

/** Upper bounds of the requests to come. Absent fields stand for the default of the request. */
export interface Expected {
  /** Beams of a beam search. */
  beams?: number;
  maxNewTokens?: number;
  /** Size of drawn pictures, in pixels. */
  width?: number;
  height?: number;
}

export type DeviceChoice = "auto" | "webgpu" | "cpu";
export type Scheduler = "pndm" | "ddim" | "dpm++";
export type Component = "vision" | "lm" | "decoder" | "safety";

/** A progress event, distinguished by `phase`. */
export type Progress =
  | {
      phase: "download";
      component: Component;
      /** Bytes available so far, from the cache or the network. */
      loaded: number;
      total: number;
      /** Bytes received over the network. May exceed `loaded` if a file had to start over. */
      fetched: number;
      /** Sums over all components of this load. */
      loadedAll: number;
      totalAll: number;
    }
  | { phase: "upload"; component: Component; loaded: number; total: number }
  /** During a load: kernels tested, unless they passed lately. Before the first call of a kind on a GPU: pipelines compiled for it. */
  | { phase: "compile"; done: number; total: number }
  | { phase: "prefill"; tokens: number }
  | { phase: "decode"; tokens: number }
  | { phase: "denoise"; step: number; steps: number; preview?: ImageData }
  | { phase: "decode-image" }
  /** A degradation; the work continues. Codes: `cache-full` and `cache-unavailable` (downloads are not kept), `gpu-failed` (the
   * CPU is used instead), `restarted` (after a crash or a lost device), `not-persistent` (the browser may delete what is stored).
   * Except for the last two, `message` is also added to `emu.support.reasons`. */
  | { phase: "warning"; code: string; message: string };

export interface CallOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Restart this call with the same seed, at most twice, after a lost device or a worker crash. Default: false, it rejects. */
  retry?: boolean;
}

export interface TextOptions extends CallOptions {
  /** Maximum number of generated tokens. Default: 128. */
  maxNewTokens?: number;
  /** 0 (the default) selects the most likely token. */
  temperature?: number;
  /** Samples from the k most likely tokens only. 0 (the default): from all. */
  topK?: number;
  /** Samples from the smallest set of tokens with this total probability. Default: 1, all tokens. */
  topP?: number;
  /** From 0.01 to 100; 1 has no effect. Default: the pack's, otherwise 1. */
  repetitionPenalty?: number;
  /** Samples from tokens that are at least this likely in relation to the most likely one, after the temperature. 0 (the default):
   * from all. */
  minP?: number;
  /** Subtracted once from the logit of each token of the answer so far, from -2 to 2. Default: 0. Not with `beams`. */
  presencePenalty?: number;
  /** Subtracted from the logit of each token of the answer so far, as many times as it occurs, from -2 to 2. Default: 0. Not with
   * `beams`. */
  frequencyPenalty?: number;
  /** Numbers from -100 (never) to 100 (always) that are added to the logits of tokens, by the tokens' ids. Not with `beams`. */
  logitBias?: Readonly<Record<number, number>>;
  /** Texts at which the answer ends. Nothing of them is given, also where they are spread over several tokens. */
  stop?: string | readonly string[];
  /** Bans n-grams of this length from occurring twice. 0 (the default): none. */
  noRepeatNgram?: number;
  /** More than 1: beam search; the text then arrives all at once. Default: 1. */
  beams?: number;
  /** Length penalty of a beam search, from -5 to 5. Default: -1. */
  lengthPenalty?: number;
  /** A whole number from 0 to 2^53 - 1. Default: random. */
  seed?: number;
}

/** Options of a drawing. Those without a stated default use the pack's own. */
export interface DrawOptions extends CallOptions {
  /** Size in pixels. */
  width?: number;
  height?: number;
  /** Denoising steps. */
  steps?: number;
  scheduler?: Scheduler;
  /** Guidance scale: the weight of the condition against the negative prompt. 1 uses the condition alone. */
  guidance?: number;
  /** Negative prompt. */
  negative?: string;
  /** A whole number from 0 to 2^53 - 1. Default: random. */
  seed?: number;
  /** Report a rough preview with every n-th step, blurred if the pack has a safety checker. 0 (the default): no previews. */
  previewEvery?: number;
}

export interface ChatOptions extends TextOptions {
  /** Number of answers, one after the other, with the seeds `seed`, `seed + 1`, and so on. Default: 1. Not with `beams`. */
  n?: number;
  /** Give log-probabilities with the text: those of the model's own distribution, before bias, penalties and temperature. The logits
   * of each token are then read back from the device, so that a token takes longer. Default: false. Not with `beams`. */
  logprobs?: boolean;
  /** Log-probabilities also of this many of the most likely tokens, at most 20. Implies `logprobs`. Default: 0. */
  topLogprobs?: number;
  /** Whether to draw the pictures that the model starts. Default: true if the pack can draw here and `beams` is 1. */
  images?: boolean;
  /** Drawing options of those pictures. */
  draw?: Omit<DrawOptions, keyof CallOptions | "seed">;
}

/** A token and the natural logarithm of its probability. */
export interface Logprob {
  id: number;
  /** The token's text, U+FFFD in place of a part of a character. */
  token: string;
  /** The token's text in UTF-8. */
  bytes: number[];
  logprob: number;
}

/** A token of an answer, and the most likely tokens in its place, best first. */
export interface TokenLogprobs extends Logprob {
  top: Logprob[];
}

/** `index`: the answer that the event belongs to, from 0. Answers come one after the other. */
export type ChatEvent =
  /** `logprobs`: with that option, those of the tokens whose text this is. */
  | { type: "text"; index: number; text: string; logprobs?: TokenLogprobs[] }
  | { type: "image"; index: number; image: ImageData; seed: number; flagged: boolean | null }
  /** The end of an answer. */
  | {
      type: "usage";
      index: number;
      /** Tokens of the prompt, those of pictures included. */
      promptTokens: number;
      /** Those of the prompt that an earlier call had computed: the longest common prefix with a conversation before. */
      cachedTokens: number;
      /** Tokens that were computed before the answer: the rest of the prompt, and what a request reader reads beside it. */
      prefillTokens: number;
      /** Tokens of the answer. */
      tokens: number;
      seconds: number;
      /** Time to first token in seconds; `null` without a token. */
      firstTokenSeconds: number | null;
      /** `prefillTokens` by the time to first token, which includes the reading of pictures. */
      prefillTokensPerSecond: number | null;
      /** Of the tokens after the first, without the drawing of pictures. */
      decodeTokensPerSecond: number | null;
      /** The model ended the answer, or began a picture with `images: false`; a stop text was found; the maximum was reached. */
      finish: "end" | "stop" | "length";
    };

export interface Picture {
  image: ImageData;
  /** Whether the safety checker blacked out the picture; null: the pack has no safety checker. */
  flagged: boolean | null;
  seed: number;
}

export interface LoadOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  device?: DeviceChoice;
  /** Upper bounds of later calls. If they cannot run, the load rejects with `unsupported` before anything large is downloaded. */
  expect?: Expected;
  /** Components to load now. The others are loaded when a call first needs them. Default: `["vision", "lm"]`. */
  components?: Component[];
  /** "opfs" (the default) stores verified shards in the origin private file system, or where that is refused in the Cache API,
   * and in the latter that the device passed its self-test; "none" stores nothing. */
  cache?: "opfs" | "none";
  /** Whether to ask the browser not to delete the stored pack when space runs short (`navigator.storage.persist()`); some
   * browsers ask the user. If it says no, a warning is reported. Default: false. */
  persist?: boolean;
  /** URLs of `worker-cpu.js` and `worker-webgpu.js`, if a bundler left them out or renamed them. Default: next to this script. */
  worker?: Addresses;
  /** URLs of the WASM modules (`cpu/emu_web_bg.wasm`, `webgpu/emu_web_bg.wasm`). Default: where the worker expects them. */
  wasm?: Addresses;
}

/** Sizes of a component in bytes. */
export interface ComponentPlan {
  component: Component;
  /** Download size, without regard to the cache. */
  download: number;
  /** Device memory of the loaded weights. */
  resident: number;
  /** Part of `download` that is already cached. */
  cached: number;
}

export type Task = "caption" | "chat" | "draw";

/** Whether and how this machine can run a pack. Computed from `emu.json` alone. */
export interface Support {
  supported: boolean;
  /** Sentences that say why the pack cannot run, or what will be degraded. */
  reasons: string[];
  /** The device that will be used; null: none can run the pack. */
  device: "webgpu" | "cpu" | null;
  adapter: {
    name: string;
    software: boolean;
    features: string[];
    limits: { maxBufferSize: number; maxStorageBufferBindingSize: number; maxComputeInvocationsPerWorkgroup: number };
  } | null;
  model: {
    name: string;
    license: string;
    attribution: string;
    imageSize: number;
    draws: number | null;
    checks: boolean;
    /** Whether the pack was made for multi-turn conversations: its prompts define how an answer ends before the next turn. Other
     * packs work best with single messages. */
    converses: boolean;
  };
  plan: ComponentPlan[];
  /** Peak device memory by task. */
  tasks: {
    task: Task;
    components: Component[];
    download: number;
    /** Bytes of the weights plus `working`. */
    resident: number;
    /** Estimated bytes of the KV cache and the activations. */
    working: number;
    /** Bytes of the largest single buffer within `working`. */
    binding: number;
    fits: boolean;
  }[];
}

/** A pack in the cache. */
export interface CachedModel {
  url: string;
  name: string;
  bytes: number;
  complete: boolean;
}

/** The device in use. */
export interface DeviceInfo {
  kind: "webgpu" | "cpu";
  name: string;
  /** Whether it is a software GPU. */
  software: boolean;
}

/** Memory in use, in bytes. */
export interface MemoryInfo {
  /** Allocated on the device. On the CPU: by tensors, within the WASM memory. */
  device: number;
  /** Size of the WASM memory. */
  wasm: number;
}

/** Cost counters since the worker started, excluding rehearsals (dry runs that compile pipelines). The difference of two
 * snapshots is the cost of the calls in between. */
export interface Costs {
  /** Kernel dispatches. On the CPU this and the fields up to `pipelines` are 0. */
  launches: number;
  /** Queue submissions that were not empty. */
  submits: number;
  /** Read-backs, and their bytes. */
  readBacks: number;
  readBackBytes: number;
  /** Compute pipelines created. */
  pipelines: number;
  /** Bytes of weights read by matrix products of calls. */
  weightBytes: number;
  /** Bytes of weights read per generated token: every layer and the head. A constant of the model, not a counter. */
  tokenWeightBytes: number;
}
