/** The provider with the real AI SDK, on a session with a fake module. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createProviderRegistry, generateImage, generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

import { createEmu } from "../build/ai-sdk.js";
import { toBase64 } from "../build/base64.js";
import { fakeModule, gated, likely, PNG } from "./fake-wasm.mjs";
import { start } from "./harness.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

async function provider(t, fake = fakeModule()) {
  const { emu } = await start(t, { fakes: [fake] });
  return { provider: createEmu(emu), emu, seen: fake.seen };
}
/** Options of every call: no repetition of what fails. */
const once = { maxRetries: 0 };
const noImages = { providerOptions: { emu: { images: false } } };

test("generateText: messages, pictures and settings in, text, reason and usage out", async (t) => {
  const { provider: emu, seen } = await provider(t);
  const picture = `data:image/png;base64,${toBase64(PNG)}`;
  const { text, finishReason, usage, warnings, response } = await generateText({
    ...once,
    model: emu("test"),
    instructions: "Be brief.",
    messages: [
      { role: "user", content: [{ type: "text", text: "what?" }, { type: "file", mediaType: "image/png", data: PNG }] },
      { role: "assistant", content: "a cat" },
      { role: "user", content: [{ type: "file", mediaType: "image", data: new URL(picture) }, { type: "file", mediaType: "image/png", data: toBase64(PNG) }] },
    ],
    maxOutputTokens: 9,
    temperature: 0.5,
    topP: 0.9,
    topK: 40,
    seed: 3,
    presencePenalty: 0.5,
    frequencyPenalty: 0.25,
    stopSequences: ["nothing like it"],
    reasoning: "high",
    providerOptions: { emu: { images: false, repetitionPenalty: 1.1, minP: 0.05, logitBias: { 5: 1 } } },
  });
  assert.equal(text, "a picture of seed 3 and 3");
  assert.equal(finishReason, "stop");
  assert.deepEqual([usage.inputTokens, usage.outputTokens, usage.totalTokens], [5, 4, 9]);
  assert.deepEqual([usage.inputTokenDetails.cacheReadTokens, usage.inputTokenDetails.noCacheTokens], [2, 3]);
  assert.deepEqual(warnings.map(({ type, feature }) => [type, feature]), [["unsupported", "reasoning"]]);
  assert.equal(response.modelId, "test");
  const [{ messages, text: options, images }] = seen.requests;
  assert.deepEqual(messages, [
    { role: "system", parts: [{ text: "Be brief." }] },
    { role: "user", parts: [{ text: "what?" }, { image: 0 }] },
    { role: "assistant", parts: [{ text: "a cat" }] },
    { role: "user", parts: [{ image: 1 }, { image: 2 }] },
  ]);
  const set = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const penalties = { repetitionPenalty: 1.1, presencePenalty: 0.5, frequencyPenalty: 0.25, logitBias: { 5: 1 } };
  assert.deepEqual(set, { maxNewTokens: 9, temperature: 0.5, topP: 0.9, topK: 40, minP: 0.05, ...penalties, stop: ["nothing like it"] });
  assert.equal(images, false);
});

test("pictures at addresses are left to the model, which may read what the SDK may not", async (t) => {
  const { provider: emu } = await provider(t);
  const { supportedUrls } = emu();
  for (const address of ["https://a.b/c.png", "http://a.b", "blob:https://a.b/1", "data:image/png;base64,x"])
    assert.ok(supportedUrls["image/*"].some((pattern) => pattern.test(address)), address);
});

test("streamText: deltas, a picture, a stop sequence", async (t) => {
  const { provider: emu } = await provider(t);
  const result = streamText({ ...once, model: emu(), prompt: "hello", seed: 2, stopSequences: ["nothing like it"] });
  const deltas = [];
  for await (const delta of result.textStream) deltas.push(delta);
  assert.equal(deltas.join(""), "a picture of seed 2 and 0");
  assert.ok(deltas.length > 2);
  const [file, ...others] = await result.files;
  assert.equal(others.length, 0);
  assert.equal(file.mediaType, "image/png");
  assert.deepEqual([...file.uint8Array.subarray(0, 8)], [...PNG.subarray(0, 8)]);
  assert.equal(await result.finishReason, "stop");
  assert.equal((await result.usage).outputTokens, 4);

  const cut = streamText({ ...once, ...noImages, model: emu(), prompt: "hello", seed: 2, stopSequences: ["ture of"] });
  assert.equal(await cut.text, "a pic");
  assert.equal(await cut.finishReason, "stop");
});

test("log-probabilities are metadata of the answer", async (t) => {
  const { provider: emu } = await provider(t);
  const call = { ...once, model: emu(), prompt: "hello", seed: 2, providerOptions: { emu: { images: false, topLogprobs: 1 } } };
  const wanted = ["a", " picture", " of seed 2", " and 0"].map((text) => likely(text, 1));
  assert.deepEqual((await generateText(call)).providerMetadata.emu.logprobs, wanted);
  const streamed = streamText(call);
  assert.equal(await streamed.text, "a picture of seed 2 and 0");
  assert.deepEqual((await streamed.providerMetadata).emu.logprobs, wanted);
  assert.equal((await generateText({ ...call, ...noImages })).providerMetadata?.emu, undefined);
});

test("an abort: of a text, of a stream, of a picture; the next call works", async (t) => {
  const fake = gated();
  const { provider: emu } = await provider(t, fake);
  const calls = [
    (abortSignal) => generateText({ ...once, model: emu(), prompt: "hello", abortSignal }),
    (abortSignal) => generateImage({ ...once, model: emu.imageModel(), prompt: "a cat", abortSignal }),
  ];
  for (const call of calls) {
    const stop = new AbortController();
    const running = call(stop.signal);
    await fake.arrived();
    stop.abort();
    await assert.rejects(running, { name: "AbortError" });
    fake.release();
  }
  const stop = new AbortController();
  const aborted = [];
  const result = streamText({ ...once, model: emu(), prompt: "hello", abortSignal: stop.signal, onAbort: () => void aborted.push(1), onError: ({ error }) => aborted.push(error) });
  const types = [];
  fake.arrived().then(fake.release);
  for await (const part of result.fullStream ?? result.stream) {
    types.push(part.type);
    if (part.type === "text-delta") stop.abort();
  }
  assert.equal(types.at(-1), "abort");
  assert.deepEqual(aborted, [1]);

  const next = generateText({ ...once, ...noImages, model: emu(), prompt: "hello", seed: 4 });
  await fake.arrived();
  fake.release();
  assert.equal((await next).text, "a picture of seed 4 and 0");
});

test("generateImage: a prompt, pictures, size and seeds in, PNG files out", async (t) => {
  const { provider: emu, seen } = await provider(t);
  const { images, providerMetadata, warnings } = await generateImage({
    ...once,
    model: emu.imageModel(),
    prompt: { text: "in this style", images: [PNG] },
    n: 2,
    size: "64x32",
    seed: 7,
    aspectRatio: "1:1",
    providerOptions: { emu: { steps: 4, scheduler: "ddim" } },
  });
  assert.equal(images.length, 2);
  assert.ok(images.every(({ mediaType }) => mediaType === "image/png"));
  assert.equal(providerMetadata.emu.images.length, 2);
  assert.ok(warnings.every(({ feature }) => feature === "aspectRatio") && warnings.length > 0);
  const [{ parts, draw, seed }] = seen.requests;
  assert.deepEqual(parts, [{ image: 0 }, { text: "in this style" }]);
  assert.deepEqual([draw.width, draw.height, draw.steps, draw.scheduler, seed], [64, 32, 4, "ddim", 7]);
});

test("what the model cannot do is said, and nothing runs", async (t) => {
  const { provider: emu, emu: session, seen } = await provider(t);
  const refused = { name: "EmuError", code: "bad-request" };
  const add = tool({ inputSchema: z.object({ a: z.number() }), execute: async () => 5 });
  const text = (options) => generateText({ ...once, model: emu(), prompt: "hello", ...options });
  await assert.rejects(text({ tools: { add } }), { ...refused, message: /cannot call tools/ });
  await assert.rejects(text({ output: Output.object({ schema: z.object({ a: z.number() }) }) }), { ...refused, message: /JSON schema/ });
  await assert.rejects(text({ providerOptions: { emu: { nonsense: 1 } } }), { ...refused, message: /no option nonsense/ });
  await assert.rejects(text({ stopSequences: [""] }), refused);
  const pdf = { type: "file", mediaType: "application/pdf", data: new TextEncoder().encode("%PDF-1.4 ") };
  await assert.rejects(text({ prompt: undefined, messages: [{ role: "user", content: [pdf] }] }), { ...refused, message: /application\/pdf/ });
  await assert.rejects(generateImage({ ...once, model: emu.imageModel(), prompt: { text: "x", images: [PNG], mask: PNG } }), { ...refused, message: /mask/ });
  assert.throws(() => emu("gpt-4o"), { ...refused, message: /gpt-4o is not loaded, but test is/ });
  assert.throws(() => emu.embeddingModel(), { ...refused, message: /emu\.embed/ });
  session.support.model.draws = null;
  assert.throws(() => emu.imageModel(), { code: "no-decoder" });
  assert.equal(seen.requests.length, 0);
});

test("an error of the engine keeps its code", async (t) => {
  const fake = fakeModule({
    run: async (_request, _pictures, tell) => {
      await tell({ type: "text", text: "so" });
      throw { code: "prompt-too-long", message: "The prompt is too long. Shorten it." };
    },
  });
  const { provider: emu } = await provider(t, fake);
  await assert.rejects(generateText({ ...once, model: emu(), prompt: "hello" }), { name: "EmuError", code: "prompt-too-long" });
  const errors = [];
  const result = streamText({ ...once, model: emu(), prompt: "hello", onError: ({ error }) => errors.push(error.code) });
  await result.consumeStream();
  assert.deepEqual(errors, ["prompt-too-long"]);
});

test("a registry finds the models by name", async (t) => {
  const { provider: emu } = await provider(t);
  const registry = createProviderRegistry({ emu });
  const { text } = await generateText({ ...once, ...noImages, model: registry.languageModel("emu:test"), prompt: "hello", seed: 1 });
  assert.equal(text, "a picture of seed 1 and 0");
  assert.equal(registry.imageModel("emu:test").modelId, "test");
});
