/**
 * A fake WASM module: it takes shards and sends events like the real one, and fails where a test asks for it. `seen` records its
 * calls.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));

/** The signature of a PNG file; the fake engine reads no further. */
export const PNG = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0]);

export function fakeModule(overrides = {}) {
  const seen = { opened: 0, selfTests: 0, shards: [], finished: [], unloaded: [], requests: [], rehearsals: [], freed: 0, inMemory: 0, hashers: 0 };

  class Hasher {
    #hash = createHash("sha256");
    constructor() {
      seen.hashers += 1;
    }
    update(bytes) {
      this.#hash.update(bytes);
    }
    hex() {
      return this.#hash.copy().digest("hex");
    }
    free() {
      seen.hashers -= 1;
    }
  }

  class Engine {
    #manifest;
    #shards = new Map();
    #finished = new Set();
    #busy = false;

    constructor(manifest, tokenizer) {
      this.#manifest = JSON.parse(new TextDecoder().decode(manifest));
      const { sha256 } = this.#manifest.files.find(({ file }) => file === "tokenizer.json");
      if (createHash("sha256").update(tokenizer).digest("hex") !== sha256)
        throw { code: "wrong-hash", message: "The tokenizer is wrong." };
    }
    resident() {
      return {};
    }
    shard(file, bytes) {
      const entry = this.#manifest.shards.find((shard) => shard.file === file);
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      if (entry.sha256 !== sha256) throw { code: "wrong-hash", message: `${file} is wrong.` };
      this.#shards.set(file, bytes.length);
      seen.shards.push(file);
    }
    async finish(component) {
      const missing = this.#manifest.components[component].shards.find((file) => !this.#shards.has(file));
      if (missing) throw { code: "missing-tensor", message: `${missing} is missing.` };
      this.#finished.add(component);
      seen.finished.push(component);
    }
    unload(component) {
      for (const file of this.#manifest.components[component].shards) this.#shards.delete(file);
      this.#finished.delete(component);
      seen.unloaded.push(component);
    }
    loaded(component) {
      return this.#finished.has(component);
    }
    async run(request, pictures, onEvent, rehearsal = false) {
      if (this.#busy) throw { code: "busy", message: "Another request is running." };
      this.#busy = true;
      seen.requests.push(request);
      seen.rehearsals.push(rehearsal);
      const tell = async (event) => {
        if (!(await onEvent(event))) throw { code: "aborted", message: "The call was aborted." };
      };
      try {
        for (const component of request.task === "embed" ? ["vision"] : ["vision", "lm"]) {
          if (!this.loaded(component)) throw { code: "not-loaded", message: `${component} is not loaded.` };
        }
        await (overrides.run ?? play)(request, pictures, tell, this);
      } finally {
        this.#busy = false;
      }
    }
    memory() {
      return { device: 1000, wasm: 65536 };
    }
    weights() {
      return { moved: 12 * seen.requests.length, token: 4 };
    }
    free() {
      seen.freed += 1;
    }
  }

  const module = {
    default: async () => {},
    version: () => version,
    open: async () => {
      seen.opened += 1;
      return { kind: "cpu", name: "fake", software: true };
    },
    selfTest: async (onProgress) => {
      seen.selfTests += 1;
      for (let done = 1; done <= 3; done++)
        if (!(await onProgress(done, 3))) throw { code: "aborted", message: "Aborted." };
    },
    ...overrides.module,
    Hasher,
    Engine,
  };
  return { module, seen };
}

/** Whether a text holds one of the stop texts: where, or -1. The real engine's matcher is tested in Rust. */
const stopAt = (text, stops = []) => Math.min(...stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0), Infinity);
/** Log-probabilities of a token whose text is this, with so many most likely ones. */
export const likely = (token, top) => {
  const of = (token, id) => ({ id, token, bytes: [...new TextEncoder().encode(token)], logprob: -1 - id });
  return { ...of(token, 0), top: Array.from({ length: top }, (_, i) => of(`t${i}`, i)) };
};

/** The events of a run: for a caption or chat its answers, for a drawing its steps. */
export async function play(request, pictures, tell, engine) {
  if (request.task === "embed")
    return tell({ type: "embeddings", rows: [Float32Array.of(1, 2), Float32Array.of(3, 4)] });
  for (let i = 0; i < (request.text?.n ?? 1); i++) await playOne({ ...request, seed: request.seed + i }, pictures, tell, engine);
}

async function playOne(request, pictures, tell, engine) {
  await tell({ type: "prefill", tokens: 5 });
  const whole = `a picture of seed ${request.seed} and ${pictures.length}`;
  const end = stopAt(whole, request.text?.stop);
  if (request.task !== "image") {
    const words = ["a", " picture", ` of seed ${request.seed}`, ` and ${pictures.length}`];
    const top = request.text.topLogprobs;
    let said = 0;
    for (const [i, word] of words.entries()) {
      const text = word.slice(0, Math.max(0, end - said));
      said += word.length;
      if (text) await tell({ type: "text", text, ...(top !== undefined && { logprobs: [likely(word, top)] }) });
      await tell({ type: "decode", tokens: i + 1 });
    }
  }
  if (request.task === "image" || request.images) {
    if (!engine.loaded("decoder")) await tell({ type: "need", component: "decoder" });
    if (!engine.loaded("decoder")) throw { code: "not-loaded", message: "The decoder is not loaded." };
    for (let step = 1; step <= 4; step++) {
      const preview = request.draw.previewEvery ? { preview: pixels() } : {};
      await tell({ type: "denoise", step, steps: 4, ...preview });
    }
    await tell({ type: "decode-image" });
    await tell({ type: "image", ...pixels(), seed: request.seed, flagged: null });
  }
  if (request.task !== "image") {
    const finish = end < whole.length ? "stop" : "end";
    await tell({ type: "usage", promptTokens: 5, cachedTokens: 2, prefillTokens: 3, tokens: 4, finish });
  }
}

export function pixels() {
  return { rgba: new Uint8ClampedArray([1, 2, 3, 255, 4, 5, 6, 255]), width: 2, height: 1 };
}

/** A module whose runs wait before their first step until `release` is called. */
export function gated() {
  const gates = [];
  const fake = fakeModule({
    run: async (request, pictures, tell, engine) => {
      await tell({ type: "prefill", tokens: 1 });
      await new Promise((open) => gates.push(open));
      await play(request, pictures, tell, engine);
    },
  });
  const arrived = async (n = 1) => {
    while (gates.length < n) await new Promise((turn) => setTimeout(turn, 1));
  };
  return { ...fake, arrived, release: () => gates.splice(0).forEach((open) => open()) };
}
