/** What the package takes and gives. */

/** A picture in any form a page has it in. Encoded bytes (PNG, JPEG, GIF, WebP, BMP, TIFF) are decoded by the model's own decoder, so
 * that results equal the native program's; other formats the browser knows (SVG, AVIF) are decoded by the browser. Upright, over white. */
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
  /** An address to fetch. */
  | string
  | URL;

/** A piece of what was said. */
export type Part =
  | { type: "text"; text: string }
  | { type: "image"; image: ImageSource }
  /** Frames of a video, in order; eight are what the model was made for. */
  | { type: "video"; frames: ImageSource[] };

/** A part, or short for one: a string is text (an address is given as a `URL` or in a `Part`), anything else a picture. */
export type Piece = Part | string | Exclude<ImageSource, string>;

/** A turn of a conversation. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string | Piece[];
}

/** A pack whose files a bundler has renamed: an address for each, `emu.json` and `tokenizer.json` among them. */
export interface PackFiles {
  /** Names the pack in the cache, such as `npm:emu-webgpu-mini`; nothing is fetched from it. */
  url: string;
  /** The address of each file by its name in the pack. */
  files: Readonly<Record<string, string>>;
}

/** Where a pack is: the address of its folder, or of each of its files. */
export type PackLocation = string | URL | PackFiles;

/** Where a file of each device is: the folder that holds them as the package does, or the address of each. */
export type Addresses = string | URL | { cpu?: string | URL; webgpu?: string | URL };

/** The largest request that will be made; what is absent is as usual. */
export interface Expected {
  /** Of a search. */
  beams?: number;
  maxNewTokens?: number;
  /** Pixels of drawn pictures. */
  width?: number;
  height?: number;
}

export type DeviceChoice = "auto" | "webgpu" | "cpu";
export type Scheduler = "pndm" | "ddim" | "dpm++";
export type Component = "vision" | "lm" | "decoder" | "safety";

/** What happens, while it does. */
export type Progress =
  | {
      phase: "download";
      component: Component;
      /** Bytes that are here, from the cache or the network. */
      loaded: number;
      total: number;
      /** Of those, bytes that came over the network. */
      fetched: number;
      /** Sums over everything being loaded. */
      loadedAll: number;
      totalAll: number;
    }
  | { phase: "upload"; component: Component; loaded: number; total: number }
  /** While loading: kernels that were tested. Before the first call of a kind on a GPU: pipelines that were made for it. */
  | { phase: "compile"; done: number; total: number }
  | { phase: "prefill"; tokens: number }
  | { phase: "decode"; tokens: number }
  | { phase: "denoise"; step: number; steps: number; preview?: ImageData }
  | { phase: "decode-image" }
  /** Something is worse than it should be, and the work goes on: `cache-full` and `cache-unavailable` (what is fetched is not
   * kept), `restarted` (after a crash or a lost device). The same sentence joins `emu.support.reasons`. */
  | { phase: "warning"; code: string; message: string };

export interface CallOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** After a lost device or a crash of the worker, start this call again with the same seed instead of rejecting. */
  retry?: boolean;
}

export interface TextOptions extends CallOptions {
  maxNewTokens?: number;
  /** 0 (the default) takes the most likely token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  noRepeatNgram?: number;
  /** More than 1: beam search; the text then comes at once. */
  beams?: number;
  lengthPenalty?: number;
  seed?: number;
}

export interface DrawOptions extends CallOptions {
  width?: number;
  height?: number;
  steps?: number;
  scheduler?: Scheduler;
  guidance?: number;
  negative?: string;
  seed?: number;
  /** A rough picture with every n-th step's progress, blurred where the pack has a safety checker; 0 (the default): none. */
  previewEvery?: number;
}

export interface ChatOptions extends TextOptions {
  /** Whether a picture that the model begins is drawn (default: where the pack can draw). */
  images?: boolean;
  /** How such pictures are drawn. */
  draw?: Omit<DrawOptions, keyof CallOptions | "seed">;
}

export type ChatEvent =
  | { type: "text"; text: string }
  | { type: "image"; image: ImageData; seed: number; flagged: boolean | null }
  | { type: "usage"; promptTokens: number; tokens: number; seconds: number; finish: "end" | "length" };

export interface Picture {
  image: ImageData;
  /** Whether the safety checker blacked it out; null: the pack has no checker. */
  flagged: boolean | null;
  seed: number;
}

export interface LoadOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  device?: DeviceChoice;
  /** What will be asked for at most: what cannot run is refused before anything large is downloaded. */
  expect?: Expected;
  /** What to load now. Others are loaded when a call first needs them. Default: vision and lm. */
  components?: Component[];
  /** "opfs" (the default) keeps verified shards in the origin's private file system; "none" keeps nothing. */
  cache?: "opfs" | "none";
  /** Where `worker-cpu.js` and `worker-webgpu.js` are, if a bundler left them out or renamed them. Default: beside this script. */
  worker?: Addresses;
  /** Where the WASM modules are (`cpu/emu_web_bg.wasm`, `webgpu/emu_web_bg.wasm`). Default: where the worker's script has them. */
  wasm?: Addresses;
}

/** Bytes that a component takes. */
export interface ComponentPlan {
  component: Component;
  /** What is downloaded, unless the cache has it. */
  download: number;
  /** What lies in the device's memory once it is loaded. */
  resident: number;
  /** What of the download is in the cache already. */
  cached: number;
}

export type Task = "caption" | "chat" | "draw";

/** Whether and how this machine can run a pack; made from `emu.json` alone. */
export interface Support {
  supported: boolean;
  /** Why not, or what will be worse, in sentences. */
  reasons: string[];
  /** What will be used. */
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
    /** Whether it was made for conversations: its prompts say how an answer ends before the next turn. Others answer single messages best. */
    converses: boolean;
  };
  plan: ComponentPlan[];
  /** What is on the device at once, at most, by task. */
  tasks: {
    task: Task;
    components: Component[];
    download: number;
    /** Bytes of the weights, and of what follows. */
    resident: number;
    /** Bytes of keys and values and of activations, about. */
    working: number;
    /** Bytes of the largest buffer among those. */
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
  /** Whether it is a GPU in software. */
  software: boolean;
}

/** Bytes in use now. */
export interface MemoryInfo {
  /** Allocated on the device (on the CPU: of the WASM memory, by tensors). */
  device: number;
  /** Size of the WASM memory. */
  wasm: number;
}

/** What the model has cost since its worker started, rehearsals for pipelines aside. The difference between two of them is what the calls in between cost. */
export interface Costs {
  /** Kernels that the GPU was told to run. 0 on the CPU, as what follows up to the pipelines. */
  launches: number;
  /** Submissions to the GPU's queue that held something. */
  submits: number;
  /** Results that came back, and their bytes. */
  readBacks: number;
  readBackBytes: number;
  /** Pipelines that were made. */
  pipelines: number;
  /** Bytes of weights that products read. */
  weightBytes: number;
  /** Bytes of weights that are read for one token: every layer and the head. No sum, but a fact of the model. */
  tokenWeightBytes: number;
}
