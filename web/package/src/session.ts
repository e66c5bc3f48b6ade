/** The calls of a loaded model, in a page and in Node. */

import type { CallHooks, Client } from "./client.js";
import { EmuError, throwIfAborted } from "./errors.js";
import { takePictures, toImageData, toWirePicture } from "./pictures.js";
import type { Fault, JobEvent, WirePicture } from "./protocol.js";
import { Stream } from "./stream.js";
import { onAbort } from "./turn.js";
import type {
  CallOptions,
  ChatEvent,
  ChatOptions,
  Costs,
  DeviceInfo,
  DrawOptions,
  ImageSource,
  MemoryInfo,
  Message,
  Picture,
  Piece,
  Progress,
  Support,
  TextOptions,
} from "./types.js";
import type { WasmDrawOptions, WasmRequest, WasmTextOptions } from "./wasm.js";

export class Session {
  /** Resolves when the previous call has prepared its pictures. */
  #prepared: Promise<unknown> = Promise.resolve();

  readonly #client: Client;

  protected constructor(client: Client) {
    this.#client = client;
  }

  /** The support report of the pack on this machine. Later warnings are added to `reasons`. */
  get support(): Support {
    return this.#client.support;
  }

  /** The device in use. */
  get device(): DeviceInfo {
    return this.#client.device;
  }

  /**
   * Answers a conversation as a stream of events. Nothing is sent before the first event is pulled. Leaving the loop aborts
   * the call. With `retry`, events that were yielded before a restart are not repeated.
   *
   * @throws {EmuError} `bad-request`, `bad-image` or `too-large`, or a code of the engine or the device.
   */
  async *chat(messages: readonly Message[], options: ChatOptions = {}): AsyncGenerator<ChatEvent, void, undefined> {
    throwIfAborted(options.signal);
    // A beam search has several candidate texts, so there is no single position for a picture.
    const images = options.images ?? (this.#draws && !((options.beams ?? 1) > 1));
    this.#client.check(images ? "chat" : "caption", options);
    const pictures: WirePicture[] = [];
    const turns = await this.#inTurn(async () => {
      const turns = [];
      for (const { role, content } of messages) turns.push({ role, parts: await takePictures(content, pictures) });
      return turns;
    });
    const request: WasmRequest = {
      task: "chat",
      messages: turns,
      text: { ...textOptions(options), n: options.n, topLogprobs: options.topLogprobs ?? (options.logprobs ? 0 : undefined) },
      images,
      draw: drawOptions(options.draw ?? {}),
      seed: seedOf(options.seed),
    };
    const events = new Stream<ChatEvent>();
    // `AbortSignal.any` requires Safari 17.4.
    const left = new AbortController();
    const leave = () => left.abort();
    const unlisten = onAbort(options.signal, leave);
    if (options.signal?.aborted) leave();
    const { signal } = left;
    // What the caller has received, and what came since the last restart: length of the text, and counts.
    const given = { text: 0, logprobs: 0, images: 0, answers: 0 };
    const seen = { ...given };
    /** The part of a text or a list that the caller has not received. */
    const fresh = <T extends string | readonly unknown[]>(of: "text" | "logprobs", all: T): T => {
      const rest = all.slice(Math.max(0, given[of] - seen[of])) as T;
      seen[of] += all.length;
      given[of] = Math.max(given[of], seen[of]);
      return rest;
    };
    const take = (event: JobEvent) => {
      const index = seen.answers;
      if ("phase" in event) {
        if (event.phase === "warning" && event.code === "restarted") seen.text = seen.logprobs = seen.images = seen.answers = 0;
      } else if (event.type === "text") {
        const text = fresh("text", event.text);
        const logprobs = fresh("logprobs", event.logprobs ?? []);
        if (text || logprobs.length) events.push({ type: "text", index, text, ...(logprobs.length > 0 && { logprobs }) });
      } else if (event.type === "image") {
        if (seen.images++ < given.images) return;
        given.images = seen.images;
        events.push({ type: "image", index, image: toImageData(event), seed: event.seed, flagged: event.flagged });
      } else if (event.type === "usage") {
        if (seen.answers++ < given.answers) return;
        given.answers = seen.answers;
        events.push({ ...event, index });
      }
    };
    const done = this.#run(request, pictures, { ...options, signal }, take);
    done.then(
      () => events.close(),
      (error) => events.fail(error),
    );
    try {
      yield* events;
    } finally {
      unlisten();
      leave();
    }
  }

  /** Captions a picture. */
  async caption(image: ImageSource, options: TextOptions = {}): Promise<string> {
    throwIfAborted(options.signal);
    this.#client.check("caption", options);
    const request: WasmRequest = { task: "caption", text: textOptions(options), seed: seedOf(options.seed) };
    let text = "";
    const picture = await this.#inTurn(() => toWirePicture(image));
    await this.#run(request, [picture], options, (event) => {
      if ("phase" in event) {
        if (event.phase === "warning" && event.code === "restarted") text = "";
      } else if (event.type === "text") text += event.text;
    });
    return text.trim();
  }

  /** Draws a picture from text and pictures. @throws {EmuError} `no-decoder` or `too-large` if it cannot draw here. */
  async generateImage(parts: string | readonly Piece[], options: DrawOptions = {}): Promise<Picture> {
    throwIfAborted(options.signal);
    const { model } = this.support;
    if (model.draws === null) throw new EmuError("no-decoder", `${model.name} cannot draw. Use a pack with a decoder.`);
    if (!this.#draws) {
      throw new EmuError(
        "too-large",
        `${model.name} cannot draw here: see support.reasons. Use a smaller pack or another machine.`,
      );
    }
    this.#client.check("draw", options);
    const pictures: WirePicture[] = [];
    const wanted = await this.#inTurn(() => takePictures(parts, pictures));
    const request: WasmRequest = {
      task: "image",
      parts: wanted,
      draw: drawOptions(options),
      seed: seedOf(options.seed),
    };
    let picture: Picture | undefined;
    await this.#run(request, pictures, options, (event) => {
      if ("type" in event && event.type === "image")
        picture = { image: toImageData(event), flagged: event.flagged, seed: event.seed };
    });
    if (!picture) throw new EmuError("crashed", "No picture came out. Try again.");
    return picture;
  }

  /** The visual embeddings that the language model receives in place of the picture. */
  async embed(image: ImageSource, options: CallOptions = {}): Promise<Float32Array[]> {
    throwIfAborted(options.signal);
    let rows: Float32Array[] = [];
    const picture = await this.#inTurn(() => toWirePicture(image));
    await this.#run({ task: "embed" }, [picture], options, (event) => {
      if ("type" in event && event.type === "embeddings") rows = event.rows;
    });
    return rows;
  }

  /** Memory in use, after all earlier calls are done. */
  async memory(): Promise<MemoryInfo> {
    return (await this.#client.call({ type: "memory" })) as MemoryInfo;
  }

  /** Cost counters, after all earlier calls are done. */
  async costs(): Promise<Costs> {
    return (await this.#client.call({ type: "costs" })) as Costs;
  }

  /** Aborts every call (each rejects with `AbortError`) and waits until the worker is idle. Loaded components stay loaded. */
  async reset(): Promise<void> {
    await this.#client.reset();
  }

  /** Ends every call (each rejects with `disposed`) and frees the worker, the device and the memory. The cache stays. */
  async dispose(): Promise<void> {
    await this.#client.dispose();
  }

  /** @internal Injects faults for tests; see `emu-webgpu/testing`. */
  provoke(fault: Fault): void {
    this.#client.provoke(fault);
  }

  get #draws(): boolean {
    const { model, tasks } = this.support;
    return model.draws !== null && tasks.some(({ task, fits }) => task === "draw" && fits);
  }

  /** Reads pictures concurrently but resolves in call order, so that calls enter the queue in the order in which they came. */
  #inTurn<T>(read: () => Promise<T>): Promise<T> {
    const mine = read();
    mine.catch(() => {}); // reported below, in this call's turn
    const turn = this.#prepared.then(() => mine);
    this.#prepared = turn.catch(() => {});
    return turn;
  }

  async #run(
    request: WasmRequest,
    pictures: WirePicture[],
    options: CallOptions,
    take: (event: JobEvent) => void,
  ): Promise<void> {
    const { signal, retry, onProgress } = options;
    const hooks: CallHooks = {
      signal,
      retry,
      onEvent: (event) => {
        const progress = toProgress(event);
        if (progress) onProgress?.(progress);
        take(event);
      },
    };
    await this.#client.call({ type: "run", request, pictures }, hooks);
  }
}

/** The progress event for the caller; `null` if the event is no progress. */
export function toProgress(event: JobEvent): Progress | null {
  if ("phase" in event) return event;
  switch (event.type) {
    case "prefill":
    case "decode":
      return { phase: event.type, tokens: event.tokens };
    case "denoise": {
      const { step, steps, preview } = event;
      return { phase: "denoise", step, steps, ...(preview && { preview: toImageData(preview) }) };
    }
    case "decode-image":
      return { phase: "decode-image" };
    default:
      return null;
  }
}

/** Checks a seed, or draws a random one: here, so that a restarted call uses the same seed. @throws {EmuError} `bad-request` */
export function seedOf(seed: number | undefined): number {
  if (seed === undefined) return crypto.getRandomValues(new Uint32Array(1))[0]!;
  if (Number.isSafeInteger(seed) && seed >= 0) return seed;
  throw new EmuError("bad-request", `${seed} is no seed. Give a whole number from 0 to 2^53 - 1.`);
}

function textOptions(options: TextOptions): WasmTextOptions {
  const { maxNewTokens, temperature, topK, topP, repetitionPenalty, noRepeatNgram, beams, lengthPenalty } = options;
  const { minP, presencePenalty, frequencyPenalty, logitBias } = options;
  const stop = typeof options.stop === "string" ? [options.stop] : options.stop;
  if (stop?.some((text) => typeof text !== "string" || text === ""))
    throw new EmuError("bad-request", "A stop text is empty or no text. Give texts of at least one character.");
  const more = { minP, presencePenalty, frequencyPenalty, logitBias, stop };
  return { maxNewTokens, temperature, topK, topP, repetitionPenalty, noRepeatNgram, beams, lengthPenalty, ...more };
}

function drawOptions(options: Omit<DrawOptions, keyof CallOptions | "seed">): WasmDrawOptions {
  const { width, height, steps, scheduler, guidance, negative, previewEvery } = options;
  return { width, height, steps, scheduler, guidance, negative, previewEvery };
}
