/** A client in the shape of the package `openai`, for a model in this page or process: nothing is sent anywhere. */

import { pictureAt, toBase64 } from "./base64.js";
import { abortError } from "./errors.js";
import { follow } from "./follow.js";
import type { Model as EmuModel } from "./model.js";
import { APIUserAbortError, modelNotFound, refuse, toApiError } from "./openai-errors.js";
import type {
  AnswerImage,
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionCreateParams,
  ChatCompletionCreateParamsNonStreaming,
  ChatCompletionCreateParamsStreaming,
  ChatCompletionMessageParam,
  ChoiceLogprobs,
  CompletionUsage,
  ContentPart,
  CreateEmbeddingResponse,
  EmbeddingCreateParams,
  FinishReason,
  ImageGenerateParams,
  ImagesResponse,
  Model,
  ModelsPage,
  RequestOptions,
} from "./openai-types.js";
import { encodePng } from "./png.js";
import type { ChatEvent, ChatOptions, Message, Part, TokenLogprobs } from "./types.js";

export {
  APIConnectionError,
  APIError,
  APIUserAbortError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
} from "./openai-errors.js";
export type * from "./openai-types.js";

/** Parameters that are labels for a server. They change no answer, so they are accepted. */
const LABELS = ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata"];
const CHAT = [
  ...["messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"],
  ...["min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"],
  ...["seed", "stop", "n", "modalities"],
];
/** Values that ask for nothing beyond what is done anyway. */
const CHAT_DEFAULTS: Record<string, readonly unknown[]> = {
  response_format: [{ type: "text" }],
  tools: [[]],
  functions: [[]],
  tool_choice: ["none", "auto"],
  function_call: ["none", "auto"],
  parallel_tool_calls: [true, false],
  reasoning_effort: ["none"],
  verbosity: ["medium"],
  service_tier: ["auto", "default"],
  store: [false],
};
const IMAGES = ["prompt", "model", "n", "size", "response_format", "output_format", "seed", "steps", "guidance", "negative_prompt"];
const IMAGES_DEFAULTS: Record<string, readonly unknown[]> = {
  background: ["auto", "opaque"],
  moderation: ["auto"],
  output_compression: [100],
  partial_images: [0],
  quality: ["auto", "standard"],
  stream: [false],
};
/** Maximum of `n`. */
const MOST = 128;

/** A stream of chunks, as of the package `openai`. It can be read once. Leaving the loop ends the call. */
export interface ChatCompletionStream extends AsyncIterable<ChatCompletionChunk> {
  /** Its `abort()` ends the call, and the loop without an error. */
  controller: AbortController;
  /** The chunks as lines of JSON. */
  toReadableStream(): ReadableStream<Uint8Array>;
}

/**
 * OpenAI's calls on a loaded model: `chat.completions.create`, `images.generate`, `embeddings.create`, `models.list`. A parameter
 * that cannot be honoured is refused, not ignored. Errors are {@link APIError}s with the `code` of the `EmuError`.
 */
export class EmuOpenAI {
  readonly chat: { completions: Completions };
  readonly images: { generate(body: ImageGenerateParams, options?: RequestOptions): Promise<ImagesResponse> };
  readonly embeddings: { create(body: EmbeddingCreateParams, options?: RequestOptions): Promise<CreateEmbeddingResponse> };
  readonly models: {
    /** The loaded model. May be awaited or looped over. */
    list(): Promise<ModelsPage> & AsyncIterable<Model>;
    retrieve(model: string): Promise<Model>;
  };

  /** @param emu a model loaded by `Emu.load`. It remains the caller's, who disposes of it. */
  constructor(emu: EmuModel) {
    const created = seconds();
    const model = (): Model => ({ id: nameOf(emu), object: "model", created, owned_by: "emu-webgpu" });
    this.chat = { completions: new Completions(emu) };
    this.images = { generate: (body, options) => guarded(options, (signal) => generate(emu, body, signal)) };
    this.embeddings = { create: (body, options) => guarded(options, (signal) => embed(emu, body, signal)) };
    this.models = {
      list: () =>
        Object.assign(Promise.resolve<ModelsPage>({ object: "list", data: [model()] }), {
          async *[Symbol.asyncIterator]() {
            yield model();
          },
        }),
      retrieve: (asked) =>
        guarded({}, async () => {
          checkModel(emu, asked);
          return model();
        }),
    };
  }
}

/** `chat.completions` */
export class Completions {
  readonly #emu: EmuModel;

  constructor(emu: EmuModel) {
    this.#emu = emu;
  }

  /** Answers a conversation. @throws {APIError} */
  create(body: ChatCompletionCreateParamsStreaming, options?: RequestOptions): Promise<ChatCompletionStream>;
  create(body: ChatCompletionCreateParamsNonStreaming, options?: RequestOptions): Promise<ChatCompletion>;
  create(body: ChatCompletionCreateParams, options?: RequestOptions): Promise<ChatCompletionStream | ChatCompletion>;
  create(body: ChatCompletionCreateParams, options?: RequestOptions): Promise<ChatCompletionStream | ChatCompletion> {
    return guarded(options, async (signal) => {
      const request = new ChatRequest(this.#emu, body);
      return body.stream ? new ChunkStream((signal) => request.chunks(signal), signal) : request.complete(signal);
    });
  }
}

/** A checked request for answers. */
class ChatRequest {
  readonly #emu: EmuModel;
  readonly #messages: Message[];
  readonly #options: ChatOptions;
  readonly #usage: boolean;
  readonly #id = idOf("chatcmpl");
  readonly #created = seconds();

  constructor(emu: EmuModel, body: ChatCompletionCreateParams) {
    this.#emu = emu;
    if (!body) throw refuse("messages", "There are no parameters", "Give at least `messages`");
    check(body, [...CHAT, ...LABELS], CHAT_DEFAULTS);
    checkModel(emu, body.model);
    const { max_tokens, max_completion_tokens, temperature, top_p, top_k, min_p, repetition_penalty, modalities } = body;
    const { presence_penalty, frequency_penalty, logit_bias, logprobs, top_logprobs, seed, stop } = body;
    if (modalities?.includes("audio")) throw refuse("modalities", "The model has no voice", 'Ask for "text" and "image" only');
    if (body.stream_options && !body.stream) throw refuse("stream_options", "There is no stream", "Set `stream`, or leave it out");
    if (body.stream_options) check(body.stream_options, ["include_usage"], { include_obfuscation: [false] }, "stream_options.");
    if (top_logprobs && !logprobs) throw refuse("top_logprobs", "There are no log-probabilities", "Set `logprobs`, or leave it out");
    this.#messages = toMessages(body.messages);
    count(body.n);
    this.#usage = body.stream_options?.include_usage ?? false;
    this.#options = given({
      maxNewTokens: max_completion_tokens ?? max_tokens,
      temperature,
      topP: top_p,
      topK: top_k,
      minP: min_p,
      repetitionPenalty: repetition_penalty,
      presencePenalty: presence_penalty,
      frequencyPenalty: frequency_penalty,
      logitBias: logit_bias,
      logprobs: logprobs || undefined,
      topLogprobs: logprobs ? top_logprobs : undefined,
      stop,
      n: body.n,
      seed,
      images: modalities && !modalities.includes("image") ? false : undefined,
    });
  }

  async *chunks(signal: AbortSignal): AsyncGenerator<ChatCompletionChunk, void, undefined> {
    const head = { id: this.#id, object: "chat.completion.chunk", created: this.#created, model: nameOf(this.#emu) } as const;
    type Choice = ChatCompletionChunk["choices"][number];
    const chunk = (index: number, delta: Choice["delta"], finish: FinishReason | null = null, logprobs: ChoiceLogprobs | null = null) => ({
      ...head,
      choices: [{ index, delta, logprobs, finish_reason: finish }],
      ...(this.#usage && { usage: null }),
    });
    let begun = 0;
    const begin = () => chunk(begun++, { role: "assistant", content: "" });
    const usage = new Usage();
    yield begin();
    for await (const event of this.#answers(signal)) {
      const { index } = event;
      if (index === begun) yield begin();
      if (event.type === "text") yield chunk(index, { content: event.text }, null, logprobsOf(event.logprobs));
      else if (event.type === "image") yield chunk(index, { images: [await pictureOf(event.image)] });
      else {
        usage.add(event);
        yield chunk(index, {}, finishOf(event.finish));
      }
    }
    if (this.#usage) yield { ...head, choices: [], usage: usage.sum() };
  }

  async complete(signal: AbortSignal | undefined): Promise<ChatCompletion> {
    const choices: ChatCompletion["choices"] = [];
    const usage = new Usage();
    let [content, tokens, images]: [string, TokenLogprobs[], AnswerImage[]] = ["", [], []];
    for await (const event of this.#answers(signal)) {
      if (event.type === "text") {
        content += event.text;
        tokens.push(...(event.logprobs ?? []));
      } else if (event.type === "image") images.push(await pictureOf(event.image));
      else {
        usage.add(event);
        const message = { role: "assistant", content, refusal: null, ...(images.length && { images }) } as const;
        const logprobs = logprobsOf(this.#options.logprobs && tokens);
        choices.push({ index: event.index, message, logprobs, finish_reason: finishOf(event.finish) });
        [content, tokens, images] = ["", [], []];
      }
    }
    return { id: this.#id, object: "chat.completion", created: this.#created, model: nameOf(this.#emu), choices, usage: usage.sum() };
  }

  #answers(signal: AbortSignal | undefined) {
    return this.#emu.chat(this.#messages, { ...this.#options, signal });
  }
}

/** The usage of all answers. Their prompt counts once. */
class Usage {
  #prompt = 0;
  #cached = 0;
  #completion = 0;

  add({ index, promptTokens, cachedTokens, tokens }: Extract<ChatEvent, { type: "usage" }>): void {
    if (index === 0) [this.#prompt, this.#cached] = [promptTokens, cachedTokens];
    this.#completion += tokens;
  }

  sum(): CompletionUsage {
    const [prompt_tokens, completion_tokens] = [this.#prompt, this.#completion];
    const total_tokens = prompt_tokens + completion_tokens;
    return { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details: { cached_tokens: this.#cached } };
  }
}

function logprobsOf(tokens: readonly TokenLogprobs[] | false | undefined): ChoiceLogprobs | null {
  const token = ({ token, bytes, logprob }: TokenLogprobs["top"][number]) => ({ token, bytes, logprob });
  return tokens ? { content: tokens.map((chosen) => ({ ...token(chosen), top_logprobs: chosen.top.map(token) })), refusal: null } : null;
}

/** The chunks of a call that starts when they are read. */
class ChunkStream implements ChatCompletionStream {
  readonly controller = new AbortController();
  readonly #start: (signal: AbortSignal) => AsyncGenerator<ChatCompletionChunk, void, undefined>;
  readonly #unlisten: () => void;
  #read = false;

  constructor(start: (signal: AbortSignal) => AsyncGenerator<ChatCompletionChunk, void, undefined>, signal: AbortSignal | undefined) {
    this.#start = start;
    this.#unlisten = follow(this.controller, signal);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ChatCompletionChunk, void, undefined> {
    if (this.#read) throw refuse(null, "This stream was read before", "Keep its chunks, or call again");
    this.#read = true;
    try {
      yield* this.#start(this.controller.signal);
    } catch (error) {
      const failed = toApiError(error);
      // As in the package `openai`: an abort ends the loop.
      if (!(failed instanceof APIUserAbortError)) throw failed;
    } finally {
      this.#unlisten();
    }
  }

  toReadableStream(): ReadableStream<Uint8Array> {
    const chunks = this[Symbol.asyncIterator]();
    const encoder = new TextEncoder();
    return new ReadableStream({
      pull: async (controller) => {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(`${JSON.stringify(value)}\n`));
      },
      cancel: async () => {
        this.controller.abort();
        await chunks.return();
      },
    });
  }
}

async function generate(emu: EmuModel, body: ImageGenerateParams, signal: AbortSignal | undefined): Promise<ImagesResponse> {
  check(body, [...IMAGES, ...LABELS], IMAGES_DEFAULTS);
  checkModel(emu, body.model);
  const { prompt, size, response_format, output_format, seed, steps, guidance, negative_prompt: negative } = body;
  if (typeof prompt !== "string") throw refuse("prompt", "There is no prompt", "Give a text");
  if (response_format && response_format !== "b64_json")
    throw refuse("response_format", "A picture drawn here has no address", 'Ask for "b64_json", and make a blob of it');
  if (output_format && output_format !== "png") throw refuse("output_format", "Pictures are given as PNG files only", 'Ask for "png"');
  const sides = !size || size === "auto" ? [] : (/^(\d{1,5})x(\d{1,5})$/.exec(size)?.slice(1).map(Number) ?? null);
  if (!sides) throw refuse("size", `${size} is no size`, 'Give WIDTHxHEIGHT, such as "512x512"');
  const [width, height] = sides;
  const data: ImagesResponse["data"] = [];
  for (let index = 0, n = count(body.n); index < n; index++) {
    const options = given({ width, height, steps, guidance, negative, seed: seed == null ? seed : seed + index });
    const picture = await emu.generateImage(prompt, { ...options, signal });
    data.push({ b64_json: toBase64(await encodePng(picture.image)), seed: picture.seed, flagged: picture.flagged });
  }
  return { created: seconds(), data };
}

async function embed(emu: EmuModel, body: EmbeddingCreateParams, signal: AbortSignal | undefined): Promise<CreateEmbeddingResponse> {
  check(body, ["input", "model", "encoding_format", ...LABELS], {});
  checkModel(emu, body.model);
  if (body.encoding_format === "base64") throw refuse("encoding_format", "Embeddings are given as numbers only", 'Ask for "float"');
  const inputs = typeof body.input === "string" ? [body.input] : body.input;
  const isAddress = (input: unknown) => typeof input === "string" && /^(data|blob|https?):/i.test(input);
  if (!Array.isArray(inputs) || inputs.length === 0 || !inputs.every(isAddress))
    throw refuse("input", "Only pictures have embeddings here", "Give their addresses: data:, blob: or http(s):");
  const data: CreateEmbeddingResponse["data"] = [];
  let tokens = 0;
  for (const [index, input] of (inputs as string[]).entries()) {
    const rows = await emu.embed(pictureAt(input), { signal });
    tokens += rows.length;
    data.push({ object: "embedding", index, embedding: mean(rows) });
  }
  return { object: "list", model: nameOf(emu), data, usage: { prompt_tokens: tokens, total_tokens: tokens } };
}

/** The mean of vectors of one length. */
function mean(rows: readonly Float32Array[]): number[] {
  const sum = new Array<number>(rows[0]?.length ?? 0).fill(0);
  for (const row of rows) row.forEach((value, i) => (sum[i]! += value / rows.length));
  return sum;
}

/** Messages for the engine. */
function toMessages(messages: readonly ChatCompletionMessageParam[]): Message[] {
  if (!Array.isArray(messages) || messages.length === 0)
    throw refuse("messages", "There are no messages", 'Give at least one, such as { role: "user", content: "hello" }');
  return messages.map((message: ChatCompletionMessageParam, i) => {
    const at = `messages[${i}]`;
    const role = message?.role === "developer" ? "system" : message?.role;
    if (role !== "system" && role !== "user" && role !== "assistant")
      throw refuse(`${at}.role`, `The role ${role} is not known here`, "Use system, developer, user or assistant");
    // An assistant's message may be one of the results. Its pictures are not shown to the model again.
    const known = ["role", "content", ...(role === "assistant" ? ["images"] : [])];
    check(message, known, { annotations: [[]], tool_calls: [[]] }, `${at}.`);
    const { content } = message;
    if (typeof content === "string") return { role, content };
    if (content == null && "images" in message) return { role, content: "" };
    if (!Array.isArray(content)) throw refuse(`${at}.content`, "A message has no content", "Give a text or a list of parts");
    return { role, content: content.map((part: ContentPart, k) => toPart(part, `${at}.content[${k}]`)) };
  });
}

function toPart(part: ContentPart, at: string): Part {
  if (part?.type === "text" && typeof part.text === "string") return { type: "text", text: part.text };
  if (part?.type !== "image_url") throw refuse(at, `A part of the type ${part?.type} cannot be read`, 'Use "text" and "image_url"');
  const { url, detail = "auto" } = part.image_url ?? {};
  if (typeof url !== "string") throw refuse(`${at}.image_url`, "A picture has no address", "Give it as `url`");
  if (detail !== null && detail !== "auto")
    throw refuse(`${at}.image_url.detail`, "The model reads every picture in the same detail", 'Use "auto", or leave it out');
  return { type: "image", image: pictureAt(url) };
}

/** Refuses what is set, but is neither honoured nor one of the values that ask for nothing. */
function check(body: object, honoured: readonly string[], defaults: Record<string, readonly unknown[]>, at = ""): void {
  for (const [name, value] of Object.entries(body ?? {})) {
    if (value == null || honoured.includes(name)) continue;
    const wanted = JSON.stringify(value);
    if (Object.hasOwn(defaults, name) && defaults[name]!.some((same) => JSON.stringify(same) === wanted)) continue;
    throw refuse(at + name, `\`${at + name}\` cannot be honoured by a model in the page`, "Leave it out");
  }
}

function checkModel(emu: EmuModel, asked: string | null | undefined): void {
  if (asked != null && asked !== nameOf(emu)) throw modelNotFound(asked, nameOf(emu));
}

/** The value of `n`. */
function count(n: number | null | undefined): number {
  if (n == null) return 1;
  if (Number.isInteger(n) && n >= 1 && n <= MOST) return n;
  throw refuse("n", `${n} is no number of results`, `Give a whole number from 1 to ${MOST}`);
}

/** The fields that are set. */
function given<T extends object>(fields: T): { [K in keyof T]: NonNullable<T[K]> | undefined } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value != null)) as { [K in keyof T]: NonNullable<T[K]> | undefined };
}

/** Runs a call with the signal of its options, and gives its errors OpenAI's shape. */
async function guarded<T>(options: RequestOptions | undefined, work: (signal: AbortSignal | undefined) => Promise<T>): Promise<T> {
  try {
    check(options ?? {}, ["signal"], {}, "options.");
    if (options?.signal?.aborted) throw abortError();
    return await work(options?.signal ?? undefined);
  } catch (error) {
    throw toApiError(error);
  }
}

const nameOf = (emu: EmuModel) => emu.support.model.name;
const finishOf = (finish: "end" | "stop" | "length"): FinishReason => (finish === "length" ? "length" : "stop");
const seconds = () => Math.floor(Date.now() / 1000);

async function pictureOf(image: ImageData): Promise<AnswerImage> {
  return { type: "image_url", image_url: { url: `data:image/png;base64,${toBase64(await encodePng(image))}` } };
}

function idOf(kind: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${kind}-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
