// @ts-check
/* A test double of the package: the published API with made-up answers. It computes nothing, and draws discs. A test sets
 * `globalThis.emuFake` before the page runs, and finds the page's calls there. */

/** @import { Emu as Real, CachedModel, CallOptions, ChatEvent, Component, DrawOptions, LoadOptions, Message, Part, Progress, Support, TextOptions } from "emu-webgpu" */

/**
 * @typedef {object} Script
 * @property {number} [pace] Milliseconds per step.
 * @property {Partial<Support>} [support] Overrides of the support report.
 * @property {Record<string, { code: string, message: string, times: number }>} [fail] Errors by call: `check`, `load`, `chat`, `caption`, `draw`.
 * @property {string} [warning] Warning of a chat.
 * @property {string} [answer] Answer of a chat.
 * @property {boolean | "first"} [imageInChat] Whether a chat draws too, and whether it does so before its text.
 * @property {CachedModel[]} [cached]
 * @property {{ name: string, options: any, [more: string]: any }[]} [calls] The calls so far.
 */

/** @type {Script} */
const script = (/** @type {any} */ (globalThis).emuFake ??= {});
const calls = (script.calls ??= []);
const pace = () => script.pace ?? 15;

/** @typedef {{ model: Support["model"], sizes: Record<Component, number> }} Double Facts about a model. */

/** @type {Double} */
const MINI = {
  model: { name: "emu-mini", license: "CC-BY-4.0", attribution: "Trained on drawings by several projects. See ATTRIBUTION.md.", imageSize: 64, draws: 64, checks: false, converses: false },
  sizes: { vision: 5_834_448, lm: 4_010_984, decoder: 9_298_328, safety: 0 },
};
/** @type {Double} */
const SMOL = {
  model: { name: "emu-smol", license: "Apache-2.0 AND CC-BY-4.0", attribution: "SmolLM2-135M-Instruct by Hugging Face. See ATTRIBUTION.md.", imageSize: 260, draws: 64, checks: false, converses: true },
  sizes: { vision: 10_070_168, lm: 96_652_232, decoder: 9_300_000, safety: 0 },
};
/** @param {any} url */
const doubleOf = (url) => (/smol/.test(String(url)) ? SMOL : MINI);
const PARTS = /** @type {Component[]} */ (["vision", "lm", "decoder"]);

export class EmuError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "EmuError";
    this.code = code;
  }
}

/** @param {string} call */
function failIfTold(call) {
  const fail = script.fail?.[call];
  if (fail && fail.times > 0) {
    fail.times -= 1;
    throw new EmuError(fail.code, fail.message);
  }
}

/** One step of work. @param {AbortSignal} [signal] @returns {Promise<void>} */
function step(signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason ?? new DOMException("Aborted.", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", end);
      resolve();
    }, pace());
    if (signal?.aborted) end();
    else signal?.addEventListener("abort", end, { once: true });
  });
}

/** A disc on a background of the prompt's colour. @param {string} prompt @param {number} seed @param {number} side @param {number} noise */
function disc(prompt, seed, side, noise) {
  const grounds = /** @type {Record<string, number[]>} */ ({ red: [214, 69, 62], blue: [74, 144, 226], green: [84, 160, 100], gray: [150, 150, 160], yellow: [244, 214, 90], purple: [140, 90, 190] });
  const ground = grounds[Object.keys(grounds).find((name) => prompt.includes(name)) ?? "purple"] ?? [0, 0, 0];
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    const x = (i % side) / side - 0.5;
    const y = Math.floor(i / side) / side - 0.5;
    const inside = x * x + y * y < 0.1;
    const color = inside ? [250, 230 - (seed % 90), 120 + y * 100] : ground;
    for (let c = 0; c < 3; c += 1) {
      const random = ((Math.imul(i * 3 + c + seed + 1, 2654435761) >>> 8) & 255) - 128;
      image.data[i * 4 + c] = /** @type {number} */ (color[c]) * (1 - noise * 0.5) + 64 * noise + random * noise;
    }
    image.data[i * 4 + 3] = 255;
  }
  return image;
}

/** @param {Part[]} parts */
const words = (parts) => parts.map((part) => (part.type === "text" ? part.text : `<${part.type}>`)).join("");

/** The last support report. @type {Support | null} */
let told = null;

/** @param {Blob} file @returns {Promise<ImageBitmap[]>} */
export async function framesOfVideo(file) {
  calls.push({ name: "frames", options: {}, bytes: file.size });
  failIfTold("frames");
  return Promise.all(Array.from({ length: 8 }, (_, i) => createImageBitmap(disc("green", i * 40, 64, 0))));
}

export class Emu {
  /** Cost counters of tokens and denoising steps. */
  #costs = { launches: 0, submits: 0, readBacks: 0, readBackBytes: 0, pipelines: 7, weightBytes: 0, tokenWeightBytes: 1000 };

  static cache = {
    /** @returns {Promise<CachedModel[]>} */
    list: async () => script.cached ?? [],
    /** @param {any} url */
    delete: async (url) => {
      script.cached = (script.cached ?? []).filter((model) => model.url !== String(url));
    },
  };

  /** @param {any} modelUrl @param {{ device?: string }} [options] @returns {Promise<Support>} */
  static async checkSupport(modelUrl, options) {
    calls.push({ name: "check", url: String(modelUrl), options });
    await step();
    failIfTold("check");
    const here = script.cached?.some((model) => model.url === String(modelUrl) && model.complete);
    const { model, sizes } = doubleOf(modelUrl);
    told = {
      supported: true,
      reasons: ["Only a software WebGPU adapter was found, so the CPU is used."],
      device: "cpu",
      adapter: {
        name: "SwiftShader (test double)",
        software: true,
        features: ["shader-f16", "timestamp-query"],
        limits: { maxBufferSize: 268_435_456, maxStorageBufferBindingSize: 134_217_728, maxComputeInvocationsPerWorkgroup: 256 },
      },
      model,
      plan: PARTS.map((component) => ({ component, download: sizes[component], resident: sizes[component] * 2, cached: here ? sizes[component] : 0 })),
      tasks: [
        { task: "caption", components: ["vision", "lm"], download: sizes.vision + sizes.lm, resident: 19_690_864, working: 1_296_384, binding: 131_072, fits: true },
        { task: "chat", components: ["vision", "lm"], download: sizes.vision + sizes.lm, resident: 19_690_864, working: 1_296_384, binding: 131_072, fits: true },
        { task: "draw", components: PARTS, download: sizes.vision + sizes.lm + sizes.decoder, resident: 38_287_520, working: 1_394_688, binding: 393_216, fits: true },
      ],
      ...script.support,
    };
    return told;
  }

  /** @param {any} modelUrl @param {LoadOptions} [options] */
  static async load(modelUrl, options = {}) {
    told ??= await Emu.checkSupport(modelUrl, options);
    calls.push({ name: "load", url: String(modelUrl), options: { device: options.device, cache: options.cache } });
    const emu = new Emu();
    emu.#sizes = doubleOf(modelUrl).sizes;
    await emu.#fetch(["vision", "lm"], options);
    failIfTold("load");
    for (let done = 1; done <= 4; done += 1) {
      await step(options.signal);
      options.onProgress?.({ phase: "compile", done, total: 4 });
    }
    return emu;
  }

  #here = /** @type {Set<Component>} */ (new Set());
  #sizes = MINI.sizes;

  support = /** @type {Support} */ (told);
  device = /** @type {const} */ ({ kind: "cpu", name: "CPU (test double)", software: false });

  /** @param {Component[]} components @param {{ signal?: AbortSignal, onProgress?: (progress: Progress) => void }} options */
  async #fetch(components, { signal, onProgress }) {
    const missing = components.filter((component) => !this.#here.has(component));
    const totalAll = missing.reduce((sum, component) => sum + this.#sizes[component], 0);
    let before = 0;
    for (const component of missing) {
      const total = this.#sizes[component];
      for (let i = 1; i <= 8; i += 1) {
        await step(signal);
        const loaded = Math.round((total * i) / 8);
        onProgress?.({ phase: "download", component, loaded, total, fetched: loaded, loadedAll: before + loaded, totalAll });
      }
      before += total;
      onProgress?.({ phase: "upload", component, loaded: total, total });
      this.#here.add(component);
    }
  }

  /** @param {number} launches @param {number} weights */
  #cost(launches, weights) {
    this.#costs.launches += launches;
    this.#costs.submits += 2;
    this.#costs.readBacks += 1;
    this.#costs.readBackBytes += 4;
    this.#costs.weightBytes += weights;
  }

  /** @param {Message[]} messages @param {any} [options] @returns {AsyncGenerator<ChatEvent>} */
  async *chat(messages, options = {}) {
    calls.push({ name: "chat", messages, options: { ...options, signal: undefined, onProgress: undefined } });
    failIfTold("chat");
    await step(options.signal);
    if (script.warning) options.onProgress?.({ phase: "warning", code: "restarted", message: script.warning });
    options.onProgress?.({ phase: "prefill", tokens: 27 });
    const draws = options.images !== false && script.imageInChat;
    const picture = () => this.#drawn({ ...options.draw, seed: options.seed, signal: options.signal, onProgress: options.onProgress });
    const start = performance.now();
    if (draws === "first") yield picture();
    const tokens = (script.answer ?? "a chick").split(/(?= )/).slice(0, options.maxNewTokens);
    let first = null;
    for (const [at, text] of tokens.entries()) {
      await step(options.signal);
      first ??= (performance.now() - start) / 1000;
      this.#cost(36, 1010);
      options.onProgress?.({ phase: "decode", tokens: at + 1 });
      yield { type: "text", index: 0, text };
    }
    if (draws === true) yield picture();
    // The text on a drawn picture is not generated token by token.
    const seconds = (performance.now() - start) / 1000;
    const count = draws === "first" ? 0 : tokens.length;
    yield {
      type: "usage",
      index: 0,
      promptTokens: 27,
      cachedTokens: 0,
      prefillTokens: 27,
      tokens: count,
      seconds,
      firstTokenSeconds: first,
      prefillTokensPerSecond: first ? 27 / first : null,
      decodeTokensPerSecond: first !== null && count > 1 ? (count - 1) / (seconds - first) : null,
      finish: "end",
    };
  }

  /** @param {any} image @param {TextOptions} [options] */
  async caption(image, options = {}) {
    calls.push({ name: "caption", image, options: { ...options, signal: undefined, onProgress: undefined } });
    failIfTold("caption");
    await step(options.signal);
    options.onProgress?.({ phase: "prefill", tokens: 18 });
    await step(options.signal);
    options.onProgress?.({ phase: "decode", tokens: 7 });
    return script.answer ?? "a fox on a blue background";
  }

  /** @param {Part[]} parts @param {DrawOptions} [options] */
  async generateImage(parts, options = {}) {
    calls.push({ name: "draw", parts, options: { ...options, signal: undefined, onProgress: undefined } });
    await this.#fetch(["decoder"], options);
    failIfTold("draw");
    return this.#denoise(words(parts), options);
  }

  /** A picture in a conversation. @param {DrawOptions} options @returns {Promise<ChatEvent>} */
  async #drawn(options) {
    await this.#fetch(["decoder"], options);
    return { type: "image", index: 0, ...(await this.#denoise("red", options)) };
  }

  /** @param {string} prompt @param {DrawOptions} options */
  async #denoise(prompt, { seed = 0, steps = 24, width = 64, previewEvery = 0, signal, onProgress }) {
    for (let at = 1; at <= steps; at += 1) {
      await step(signal);
      this.#cost(218, 5000);
      const preview = previewEvery && at % previewEvery === 0 ? { preview: disc(prompt, seed, width, 1 - at / steps) } : {};
      onProgress?.({ phase: "denoise", step: at, steps, ...preview });
    }
    onProgress?.({ phase: "decode-image" });
    await step(signal);
    return { image: disc(prompt, seed, width, 0), flagged: null, seed };
  }

  /** @param {any} _image @param {CallOptions} [_options] */
  async embed(_image, _options) {
    return [new Float32Array(1)];
  }

  async reset() {
    calls.push({ name: "reset", options: {} });
  }

  async memory() {
    return { device: 19_690_864, wasm: 41_943_040 };
  }

  async costs() {
    return { ...this.#costs };
  }

  async dispose() {
    calls.push({ name: "dispose", options: {} });
  }
}

/* Compile-time check that the double has the calls of the real class. */
/** @type {Pick<Real, "chat" | "caption" | "generateImage" | "embed" | "memory" | "costs" | "reset" | "dispose" | "support" | "device">} */
const instance = Emu.prototype;
/** @type {Pick<typeof Real, "checkSupport" | "cache">} */
const type = Emu;
void instance, type;
