/**
 * Arguments and results in OpenAI's shape, as far as the client honours them. Arguments typed by the package `openai` are accepted,
 * and results can be used where its types are expected; what a model here cannot do is refused when it is asked for.
 */

/** A part of a message's content. Parts of other types are refused. */
export type ContentPart =
  | { type: "text"; text: string }
  /** `url`: a `data:`, `blob:` or `http(s):` address, or one relative to the page. */
  | { type: "image_url"; image_url: { url: string; detail?: "auto" | "low" | "high" | (string & {}) | null } }
  | { type: "refusal"; refusal: string }
  | { type: "input_audio"; input_audio: object }
  | { type: "file"; file: object };

/** A message. The roles `tool` and `function` are refused. */
export interface ChatCompletionMessageParam {
  role: "developer" | "system" | "user" | "assistant" | "tool" | "function";
  content?: string | readonly ContentPart[] | null;
}

/** Parameters of `chat.completions.create`. Any other that is set is refused. */
export interface ChatCompletionCreateParams {
  messages: readonly ChatCompletionMessageParam[];
  /** The name of the loaded pack, as `models.list` gives it. Default: that one. */
  model?: string;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean } | null;
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
  /** Default: 0, the most likely token. */
  temperature?: number | null;
  top_p?: number | null;
  /** Not of OpenAI: samples from the k most likely tokens. */
  top_k?: number | null;
  /** Not of OpenAI: samples from tokens that are at least this likely in relation to the most likely one. */
  min_p?: number | null;
  /** Not of OpenAI: from 0.01 to 100, 1 has no effect. */
  repetition_penalty?: number | null;
  /** From -2 to 2, on the tokens of the answer so far. */
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  /** Numbers from -100 to 100, by the ids of tokens of the loaded model. */
  logit_bias?: Readonly<Record<string, number>> | null;
  /** The logits of each token are then read back from the device, so that a token takes longer. */
  logprobs?: boolean | null;
  /** At most 20; with `logprobs`. */
  top_logprobs?: number | null;
  /** A whole number from 0 to 2^53 - 1. Answer i of `n` has the seed `seed + i`. Default: random. */
  seed?: number | null;
  stop?: string | readonly string[] | null;
  /** Number of answers, generated one after the other. */
  n?: number | null;
  /** `["text"]` draws nothing. Default: the model draws where it starts a picture. */
  modalities?: readonly ("text" | "image" | "audio")[] | null;
}

export interface ChatCompletionCreateParamsStreaming extends ChatCompletionCreateParams {
  stream: true;
}

export interface ChatCompletionCreateParamsNonStreaming extends ChatCompletionCreateParams {
  stream?: false | null;
}

/** Options of every call. Any other is refused: there is no request over a network. */
export interface RequestOptions {
  signal?: AbortSignal | null;
}

/** A picture in an answer, as a PNG at a `data:` address. Not of OpenAI. */
export interface AnswerImage {
  type: "image_url";
  image_url: { url: string };
}

export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Tokens of the prompt that an earlier call had computed. */
  prompt_tokens_details: { cached_tokens: number };
}

/** A token with its log-probability, in the model's own distribution: before bias, penalties and temperature. */
export interface TokenLogprob {
  token: string;
  bytes: number[];
  logprob: number;
}

export interface ChatCompletionTokenLogprob extends TokenLogprob {
  /** The most likely tokens in its place, best first. */
  top_logprobs: TokenLogprob[];
}

export interface ChoiceLogprobs {
  content: ChatCompletionTokenLogprob[];
  refusal: null;
}

export type FinishReason = "stop" | "length";

export interface ChatCompletionMessage {
  role: "assistant";
  content: string | null;
  refusal: null;
  /** Pictures that the model drew, if it drew any. */
  images?: AnswerImage[];
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: { index: number; message: ChatCompletionMessage; logprobs: ChoiceLogprobs | null; finish_reason: FinishReason }[];
  usage: CompletionUsage;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: { role?: "assistant"; content?: string; images?: AnswerImage[] };
    logprobs: ChoiceLogprobs | null;
    finish_reason: FinishReason | null;
  }[];
  /** With `stream_options.include_usage`: `null`, and in the last chunk the usage. */
  usage?: CompletionUsage | null;
}

/** Parameters of `images.generate`. Any other that is set is refused. */
export interface ImageGenerateParams {
  prompt: string;
  model?: string | null;
  n?: number | null;
  /** `WIDTHxHEIGHT`, or `auto` (the default): the pack's own size. */
  size?: string | null;
  response_format?: "b64_json" | (string & {}) | null;
  output_format?: "png" | (string & {}) | null;
  /** Not of OpenAI: see `DrawOptions`. Picture i of `n` has the seed `seed + i`. */
  seed?: number | null;
  steps?: number | null;
  guidance?: number | null;
  negative_prompt?: string | null;
}

export interface ImagesResponse {
  created: number;
  data: {
    /** A PNG file in base64. */
    b64_json: string;
    /** Not of OpenAI. */
    seed: number;
    /** Not of OpenAI. Whether the safety checker blacked out the picture; `null`: the pack has none. */
    flagged: boolean | null;
  }[];
}

/** Parameters of `embeddings.create`. Any other that is set is refused. */
export interface EmbeddingCreateParams {
  /** Addresses of pictures, as for `image_url`. Texts have no embeddings here. */
  input: string | readonly string[] | readonly number[] | readonly (readonly number[])[];
  model?: string;
  encoding_format?: "float" | "base64" | null;
}

export interface CreateEmbeddingResponse {
  object: "list";
  model: string;
  data: {
    object: "embedding";
    index: number;
    /** The mean of the picture's embeddings; `emu.embed` gives each. */
    embedding: number[];
  }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

export interface Model {
  id: string;
  object: "model";
  created: number;
  owned_by: string;
}

export interface ModelsPage {
  object: "list";
  data: Model[];
}
