/** `emu-webgpu/openai` beside the types of the package `openai`. Checked by the compiler, never run. */

import type OpenAI from "openai";

import { Emu } from "emu-webgpu";
import { Emu as NodeEmu } from "emu-webgpu/node";
import { APIError, type ChatCompletionStream, EmuOpenAI } from "emu-webgpu/openai";

/** Asserts that one type can be used where another is expected. */
type Fits<Given extends Expected, Expected> = Given;
type Result<F extends (...args: never[]) => unknown> = Awaited<ReturnType<F>>;

declare const ai: EmuOpenAI;
declare const streaming: OpenAI.ChatCompletionCreateParamsStreaming;
declare const whole: OpenAI.ChatCompletionCreateParamsNonStreaming;
declare const either: OpenAI.ChatCompletionCreateParams;

/** Arguments and results of each call, as code that was written for OpenAI has them. */
export async function calls(): Promise<void> {
  const answer: OpenAI.ChatCompletion = await ai.chat.completions.create(whole);
  const chunks: AsyncIterable<OpenAI.ChatCompletionChunk> = await ai.chat.completions.create(streaming);
  const any: OpenAI.ChatCompletion | AsyncIterable<OpenAI.ChatCompletionChunk> = await ai.chat.completions.create(either);
  const images: OpenAI.ImagesResponse = await ai.images.generate({ prompt: "a cat" } satisfies OpenAI.ImageGenerateParams);
  const given: OpenAI.ImageGenerateParamsNonStreaming = { prompt: "a cat", size: "512x512", n: 2 };
  await ai.images.generate(given);
  const embeddings: OpenAI.CreateEmbeddingResponse = await ai.embeddings.create({ model: "emu-mini", input: "data:," } satisfies OpenAI.EmbeddingCreateParams);
  const models: OpenAI.Model[] = (await ai.models.list()).data;
  for await (const model of ai.models.list()) models.push(model);
  const model: OpenAI.Model = await ai.models.retrieve("emu-mini");

  // A conversation that goes on with the answer.
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "system", content: "Be brief." },
    { role: "user", content: [{ type: "text", text: "what?" }, { type: "image_url", image_url: { url: "data:," } }] },
  ];
  const { choices } = await ai.chat.completions.create({ model: "emu-mini", messages });
  messages.push(choices[0]!.message);
  const text: string = choices[0]!.message.content ?? "";
  const stream: ChatCompletionStream = await ai.chat.completions.create({ messages, stream: true, stop: ["\n"], top_k: 40 }, { signal: new AbortController().signal });
  for await (const { choices, usage } of stream) console.log(choices[0]?.delta.content, choices[0]?.delta.images, usage?.total_tokens);
  stream.controller.abort();
  const own = { messages, min_p: 0.1, presence_penalty: 0.5, frequency_penalty: 0.5, logit_bias: { 50: -100 }, logprobs: true, top_logprobs: 2 };
  const logprobs: OpenAI.ChatCompletionTokenLogprob[] = (await ai.chat.completions.create(own)).choices[0]!.logprobs?.content ?? [];
  console.log(logprobs);
  console.log(answer, chunks, any, images, embeddings, model, text);

  // @ts-expect-error: an answer needs messages.
  await ai.chat.completions.create({ model: "emu-mini" });
  // @ts-expect-error: no such parameter.
  await ai.chat.completions.create({ messages, think: true });
  // @ts-expect-error: a request over a network has a timeout.
  await ai.chat.completions.create({ messages }, { timeout: 5 });
}

/** A client can be made of both models, and of a fake one. */
export async function clients(): Promise<void> {
  new EmuOpenAI(await Emu.load("models/emu-mini"));
  new EmuOpenAI(await NodeEmu.load("models/emu-mini"));
  // @ts-expect-error: loaded first.
  new EmuOpenAI(Emu.load("models/emu-mini"));
}

/** The fields of an error. */
export function errors(error: unknown): void {
  if (!(error instanceof APIError)) return;
  type Fields = "status" | "error" | "code" | "param" | "type" | "message";
  const same: Pick<InstanceType<typeof OpenAI.APIError>, Fields> = error;
  console.log(same.code satisfies string | null | undefined);
}

export type Messages = Fits<OpenAI.ChatCompletionMessageParam[], NonNullable<Parameters<EmuOpenAI["chat"]["completions"]["create"]>[0]>["messages"]>;
export type Listed = Fits<Result<EmuOpenAI["models"]["list"]>["data"], OpenAI.Model[]>;
