/** A provider for the AI SDK (the package `ai`): its provider specification v4, on a loaded model. Nothing is sent anywhere. */

import type {
  EmbeddingModelV4,
  ImageModelV4,
  ImageModelV4CallOptions,
  ImageModelV4File,
  ImageModelV4Result,
  JSONObject,
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4FilePart,
  LanguageModelV4FinishReason,
  LanguageModelV4GenerateResult,
  LanguageModelV4Prompt,
  LanguageModelV4StreamPart,
  LanguageModelV4StreamResult,
  LanguageModelV4Usage,
  ProviderV4,
  SharedV4Warning,
} from "@ai-sdk/provider";

import { fromBase64, pictureAt } from "./base64.js";
import { isAbort } from "./errors.js";
import { EmuError } from "./index.js";
import type { Model } from "./model.js";
import { encodePng } from "./png.js";
import type { ChatEvent, ChatOptions, DrawOptions, ImageSource, Message, Part, Piece, TokenLogprobs } from "./types.js";

/** Name of the provider: of its models, of its options (`providerOptions.emu`) and of its metadata. */
const NAME = "emu";

/** Options of `providerOptions.emu` for texts, beside those of the AI SDK. */
export type EmuTextOptions = Pick<ChatOptions, (typeof TEXT_OPTIONS)[number]>;
/** Options of `providerOptions.emu` for pictures. */
export type EmuImageOptions = Pick<DrawOptions, "steps" | "scheduler" | "guidance" | "negative">;

const TEXT_OPTIONS = [
  ...(["minP", "logitBias", "logprobs", "topLogprobs", "repetitionPenalty", "noRepeatNgram"] as const),
  ...(["beams", "lengthPenalty", "images", "draw"] as const),
] as const;
const IMAGE_OPTIONS = ["steps", "scheduler", "guidance", "negative"];

/** The models of a loaded pack. Their id is the name of the pack, and may be left out. */
export interface EmuProvider extends ProviderV4 {
  (modelId?: string): LanguageModelV4;
  languageModel(modelId?: string): LanguageModelV4;
  /** The model that draws. @throws {EmuError} `no-decoder` if the pack cannot draw. */
  imageModel(modelId?: string): ImageModelV4;
  /** Texts have no embeddings here. @throws {EmuError} `bad-request` */
  embeddingModel(modelId?: string): EmbeddingModelV4;
}

/**
 * Makes a provider of a model that `Emu.load` loaded. The model remains the caller's, who disposes of it.
 *
 * ```ts
 * const provider = createEmu(await Emu.load(pack));
 * const { text } = await generateText({ model: provider(), prompt: "what is the capital of Spain?" });
 * ```
 */
export function createEmu(emu: Model): EmuProvider {
  const languageModel = (modelId?: string) => new EmuLanguageModel(emu, checked(emu, modelId));
  return Object.assign(languageModel, {
    specificationVersion: "v4" as const,
    languageModel,
    imageModel: (modelId?: string) => {
      const id = checked(emu, modelId);
      if (emu.support.model.draws === null) throw new EmuError("no-decoder", `${id} cannot draw. Use a pack with a decoder.`);
      return new EmuImageModel(emu, id);
    },
    embeddingModel: (): EmbeddingModelV4 => {
      throw new EmuError("bad-request", "Texts have no embeddings here. Use `emu.embed` for those of a picture.");
    },
  });
}

function checked(emu: Model, modelId: string | undefined): string {
  const { name } = emu.support.model;
  if (modelId === undefined || modelId === name) return name;
  throw new EmuError("bad-request", `The model ${modelId} is not loaded, but ${name} is. Use that name, or leave it out.`);
}

class EmuLanguageModel implements LanguageModelV4 {
  readonly specificationVersion = "v4";
  readonly provider = NAME;
  readonly modelId: string;
  /** Pictures are fetched by the model itself. */
  readonly supportedUrls = { "image/*": [/^(https?|blob|data):/] };
  readonly #emu: Model;

  constructor(emu: Model, modelId: string) {
    [this.#emu, this.modelId] = [emu, modelId];
  }

  async doGenerate(options: LanguageModelV4CallOptions): Promise<LanguageModelV4GenerateResult> {
    const { events, warnings } = this.#answer(options);
    const content: LanguageModelV4Content[] = [];
    const logprobs: TokenLogprobs[] = [];
    let [finishReason, usage] = [finishOf("end"), usageOf()];
    for await (const event of events) {
      const last = content.at(-1);
      if (event.type === "image") content.push(await fileOf(event.image));
      else if (event.type === "usage") [finishReason, usage] = [finishOf(event.finish), usageOf(event)];
      else {
        logprobs.push(...(event.logprobs ?? []));
        if (last?.type === "text") last.text += event.text;
        else if (event.text) content.push({ type: "text", text: event.text });
      }
    }
    const response = { timestamp: new Date(), modelId: this.modelId };
    return { content, finishReason, usage, warnings, response, ...metadataOf(logprobs) };
  }

  async doStream(options: LanguageModelV4CallOptions): Promise<LanguageModelV4StreamResult> {
    const { events, warnings } = this.#answer(options);
    const parts = this.#parts(events, warnings);
    const stream = new ReadableStream<LanguageModelV4StreamPart>({
      pull: async (controller) => {
        const { done, value } = await parts.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async () => void (await parts.return()),
    });
    return { stream };
  }

  /** Checks a call, and starts it when its first event is pulled. */
  #answer(options: LanguageModelV4CallOptions) {
    const { tools, responseFormat, stopSequences = [] } = options;
    if (tools?.length) throw cannot("call tools", "Leave `tools` out");
    if (responseFormat?.type === "json") throw cannot("be held to a JSON schema", "Ask for text");
    const messages = toMessages(options.prompt);
    const warnings: SharedV4Warning[] = [];
    const ignored = (feature: string, details: string) => warnings.push({ type: "unsupported", feature, details });
    if (!["provider-default", "none", undefined].includes(options.reasoning)) ignored("reasoning", "The model answers at once.");
    const { maxOutputTokens: maxNewTokens, temperature, topP, topK, presencePenalty, frequencyPenalty, seed, abortSignal: signal } = options;
    const own = ownOptions<EmuTextOptions>(options.providerOptions, TEXT_OPTIONS);
    const penalties = { presencePenalty, frequencyPenalty };
    const call = { ...own, maxNewTokens, temperature, topP, topK, ...penalties, stop: stopSequences, seed, signal };
    return { events: this.#emu.chat(messages, call), warnings };
  }

  async *#parts(events: AsyncIterable<ChatEvent>, warnings: SharedV4Warning[]): AsyncGenerator<LanguageModelV4StreamPart, void> {
    yield { type: "stream-start", warnings };
    yield { type: "response-metadata", timestamp: new Date(), modelId: this.modelId };
    // Text between two pictures is one block.
    let [block, open] = [0, false];
    const logprobs: TokenLogprobs[] = [];
    const end = (): LanguageModelV4StreamPart[] => {
      if (!open) return [];
      open = false;
      return [{ type: "text-end", id: String(block++) }];
    };
    try {
      for await (const event of events) {
        if (event.type === "text") {
          logprobs.push(...(event.logprobs ?? []));
          if (!event.text) continue;
          if (!open) yield { type: "text-start", id: String(block) };
          open = true;
          yield { type: "text-delta", id: String(block), delta: event.text };
          continue;
        }
        yield* end();
        if (event.type === "image") yield await fileOf(event.image);
        else yield { type: "finish", finishReason: finishOf(event.finish), usage: usageOf(event), ...metadataOf(logprobs) };
      }
    } catch (error) {
      // The SDK takes an abort from the stream itself, and other errors from a part.
      if (isAbort(error)) throw error;
      yield* end();
      yield { type: "error", error };
      yield { type: "finish", finishReason: { unified: "error", raw: undefined }, usage: usageOf() };
    }
  }
}

class EmuImageModel implements ImageModelV4 {
  readonly specificationVersion = "v4";
  readonly provider = NAME;
  readonly modelId: string;
  /** Pictures are drawn one after the other. */
  readonly maxImagesPerCall = 1;
  readonly #emu: Model;

  constructor(emu: Model, modelId: string) {
    [this.#emu, this.modelId] = [emu, modelId];
  }

  async doGenerate(options: ImageModelV4CallOptions): Promise<ImageModelV4Result> {
    const { prompt, n, size, aspectRatio, seed, files, mask, abortSignal: signal } = options;
    if (mask) throw cannot("fill a masked area", "Leave the mask out");
    const pieces: Piece[] = (files ?? []).map((file) => ({ type: "image", image: fileSource(file) }));
    if (prompt !== undefined) pieces.push(prompt);
    if (pieces.length === 0) throw new EmuError("bad-request", "There is nothing to draw. Give a prompt.");
    const warnings: SharedV4Warning[] = [];
    if (aspectRatio) warnings.push({ type: "unsupported", feature: "aspectRatio", details: "Give a `size`." });
    const [width, height] = size?.split("x").map(Number) ?? [];
    const own = ownOptions<EmuImageOptions>(options.providerOptions, IMAGE_OPTIONS);
    const images: Uint8Array[] = [];
    const metadata: JSONObject[] = [];
    for (let i = 0; i < n; i++) {
      const drawn = { ...own, width, height, seed: seed === undefined ? seed : seed + i, signal };
      const picture = await this.#emu.generateImage(pieces, drawn);
      images.push(await encodePng(picture.image));
      metadata.push({ seed: picture.seed, flagged: picture.flagged });
    }
    const response = { timestamp: new Date(), modelId: this.modelId, headers: undefined };
    return { images, warnings, providerMetadata: { [NAME]: { images: metadata } }, response };
  }
}

/** The prompt as messages for the engine. */
function toMessages(prompt: LanguageModelV4Prompt): Message[] {
  return prompt.map((message): Message => {
    if (message.role === "system") return { role: "system", content: message.content };
    if (message.role === "tool") throw cannot("call tools", "Leave their results out");
    const content: Part[] = [];
    for (const part of message.content) {
      if (part.type === "text") content.push({ type: "text", text: part.text });
      else if (message.role === "user" && part.type === "file") content.push({ type: "image", image: pictureOf(part) });
      // Pictures that the model drew are not shown to it again.
      else if (part.type !== "file") throw cannot(`read a part of the type ${part.type}`, "Leave it out");
    }
    return { role: message.role, content };
  });
}

function pictureOf({ mediaType, data }: LanguageModelV4FilePart): ImageSource {
  if (!/^image(\/|$)/.test(mediaType)) throw cannot(`read a file of the type ${mediaType}`, "Give pictures");
  if (data.type === "url") return pictureAt(data.url.href);
  if (data.type === "data") return typeof data.data === "string" ? fromBase64(data.data) : data.data;
  throw cannot(`read a picture given as ${data.type}`, "Give its bytes or its address");
}

function fileSource(file: ImageModelV4File): ImageSource {
  if (file.type === "url") return pictureAt(file.url);
  return typeof file.data === "string" ? fromBase64(file.data) : file.data;
}

/** The options of `providerOptions.emu`. @throws {EmuError} `bad-request` for an unknown one. */
function ownOptions<T extends object>(given: LanguageModelV4CallOptions["providerOptions"], known: readonly string[]): T {
  const own = given?.[NAME] ?? {};
  const unknown = Object.keys(own).find((name) => !known.includes(name));
  if (unknown === undefined) return own as T;
  throw new EmuError("bad-request", `providerOptions.${NAME} has no option ${unknown}. Use ${known.join(", ")}.`);
}

async function fileOf(image: ImageData): Promise<Extract<LanguageModelV4Content, { type: "file" }>> {
  return { type: "file", mediaType: "image/png", data: { type: "data", data: await encodePng(image) } };
}

function finishOf(finish: "end" | "stop" | "length"): LanguageModelV4FinishReason {
  return { unified: finish === "length" ? "length" : "stop", raw: finish };
}

function usageOf({ promptTokens = 0, cachedTokens = 0, tokens = 0 } = {}): LanguageModelV4Usage {
  return {
    inputTokens: { total: promptTokens, noCache: promptTokens - cachedTokens, cacheRead: cachedTokens, cacheWrite: undefined },
    outputTokens: { total: tokens, text: tokens, reasoning: undefined },
  };
}

/** Log-probabilities as metadata, if there are any. */
function metadataOf(logprobs: TokenLogprobs[]) {
  // Plain objects: an interface lacks the index signature of `JSONObject`.
  return logprobs.length > 0 && { providerMetadata: { [NAME]: { logprobs: logprobs as unknown as JSONObject[] } } };
}

function cannot(what: string, advice: string): EmuError {
  return new EmuError("bad-request", `A model in the page cannot ${what}. ${advice}.`);
}
