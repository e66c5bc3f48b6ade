/** The client in OpenAI's shape, on a session with a fake module. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inflateSync } from "node:zlib";

import { pictureAt, toBase64 } from "../build/base64.js";
import { encodePng } from "../build/png.js";
import { APIError, APIUserAbortError, BadRequestError, EmuOpenAI, InternalServerError, NotFoundError } from "../build/openai.js";
import { fakeModule, gated, likely, pixels, PNG } from "./fake-wasm.mjs";
import { collect, start } from "./harness.mjs";

const HELLO = [{ role: "user", content: "hello" }];
/** A module that says these pieces, each a token. */
const saying = (...pieces) =>
  fakeModule({
    run: async (_request, _pictures, tell) => {
      await tell({ type: "prefill", tokens: 7 });
      for (const [i, text] of pieces.entries()) {
        await tell({ type: "text", text });
        await tell({ type: "decode", tokens: i + 1 });
      }
      await tell({ type: "usage", promptTokens: 7, cachedTokens: 3, prefillTokens: 4, tokens: pieces.length, finish: "length" });
    },
  });

async function client(t, fake = fakeModule(), options = {}) {
  const { emu, ...rest } = await start(t, { fakes: [fake], ...options });
  return { ai: new EmuOpenAI(emu), emu, seen: fake.seen, ...rest };
}
const chat = (ai, body, options) => ai.chat.completions.create({ messages: HELLO, ...body }, options);
const contentOf = (chunks, index = 0) =>
  chunks.flatMap(({ choices }) => choices.filter((choice) => choice.index === index).map(({ delta }) => delta.content ?? "")).join("");

test("an answer has OpenAI's shape, with usage", async (t) => {
  const { ai } = await client(t);
  const { id, created, ...answer } = await chat(ai, { model: "test", seed: 3, modalities: ["text"] });
  assert.match(id, /^chatcmpl-[0-9a-f]{24}$/);
  assert.ok(Math.abs(created - Date.now() / 1000) < 60);
  assert.deepEqual(answer, {
    object: "chat.completion",
    model: "test",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "a picture of seed 3 and 0", refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: { prompt_tokens: 5, completion_tokens: 4, total_tokens: 9, prompt_tokens_details: { cached_tokens: 2 } },
  });
});

test("a stream has a role, the text in pieces, a reason, and usage where it is asked for", async (t) => {
  const { ai } = await client(t, saying("one", " two"));
  const chunks = await collect(await chat(ai, { stream: true, stream_options: { include_usage: true } }));
  assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
  assert.ok(chunks.every(({ object, model }) => object === "chat.completion.chunk" && model === "test"));
  assert.deepEqual(
    chunks.map(({ choices }) => choices.map(({ delta, finish_reason }) => [delta, finish_reason])),
    [[[{ role: "assistant", content: "" }, null]], [[{ content: "one" }, null]], [[{ content: " two" }, null]], [[{}, "length"]], []],
  );
  const usage = { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9, prompt_tokens_details: { cached_tokens: 3 } };
  assert.deepEqual(
    chunks.map(({ usage }) => usage),
    [null, null, null, null, usage],
  );
  const without = await collect(await chat(ai, { stream: true }));
  assert.equal(without.length, 4);
  assert.ok(without.every((chunk) => !("usage" in chunk)));
});

test("roles, turns, parts and options reach the engine", async (t) => {
  const { ai, seen } = await client(t);
  const picture = `data:image/png;base64,${toBase64(PNG)}`;
  const first = await chat(ai, { seed: 1 });
  const { message } = first.choices[0];
  assert.match(message.images[0].image_url.url, /^data:image\/png;base64,/);
  await chat(ai, {
    messages: [
      { role: "developer", content: "Be brief." },
      { role: "user", content: [{ type: "image_url", image_url: { url: picture, detail: "auto" } }, { type: "text", text: "what?" }] },
      message,
      { role: "assistant", content: [{ type: "text", text: "a cat" }], refusal: null },
      { role: "user", content: "and now?" },
    ],
    max_tokens: 9,
    max_completion_tokens: 8,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.1,
    repetition_penalty: 1.1,
    presence_penalty: 0.5,
    frequency_penalty: -0.5,
    logit_bias: { 50: -100 },
    seed: 11,
    modalities: ["text"],
    // These ask for nothing.
    ...{ logprobs: false, response_format: { type: "text" }, tools: [], user: "somebody", metadata: null },
  });
  const [, { messages, text, images, seed }] = seen.requests;
  assert.deepEqual(messages, [
    { role: "system", parts: [{ text: "Be brief." }] },
    { role: "user", parts: [{ image: 0 }, { text: "what?" }] },
    { role: "assistant", parts: [{ text: "a picture of seed 1 and 0" }] },
    { role: "assistant", parts: [{ text: "a cat" }] },
    { role: "user", parts: [{ text: "and now?" }] },
  ]);
  const set = Object.fromEntries(Object.entries(text).filter(([, value]) => value !== undefined));
  const penalties = { repetitionPenalty: 1.1, presencePenalty: 0.5, frequencyPenalty: -0.5, logitBias: { 50: -100 } };
  assert.deepEqual(set, { maxNewTokens: 8, temperature: 0.5, topP: 0.9, topK: 40, minP: 0.1, ...penalties });
  assert.deepEqual([images, seed], [false, 11]);
});

test("pictures at addresses: data: is decoded here, others are fetched by the worker", async (t) => {
  assert.deepEqual(pictureAt(`data:image/png;base64,${toBase64(PNG)}`), PNG);
  assert.deepEqual(pictureAt(`DATA:;charset=x;base64,${encodeURIComponent(toBase64(PNG))}`), PNG);
  assert.equal(new TextDecoder().decode(pictureAt("data:image/svg+xml,%3Csvg/%3E")), "<svg/>");
  for (const bad of ["data:image/png;base64,?!", "data:image/png;base64", "data:image/svg+xml,%E0%A4%A"])
    assert.throws(() => pictureAt(bad), { name: "EmuError", code: "bad-image" });
  const asked = [];
  const fetch = async (url) => (asked.push(url), url.startsWith("file:") ? (await import("node:fs/promises")).readFile(new URL(url)).then((bytes) => new Response(bytes)) : new Response(PNG));
  const { ai } = await client(t, fakeModule(), { fetch });
  const answer = await chat(ai, { seed: 2, messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "https://a.b/c.png" } }] }] });
  assert.match(answer.choices[0].message.content, /and 1$/);
  assert.ok(asked.includes("https://a.b/c.png"));
});

test("a stop sequence ends the answer, and no part of it is given", async (t) => {
  const { ai, seen } = await client(t);
  const given = { seed: 2, modalities: ["text"] };
  const stopped = await collect(await chat(ai, { ...given, stream: true, stop: "ture of", stream_options: { include_usage: true } }));
  assert.equal(contentOf(stopped), "a pic");
  assert.deepEqual(stopped.at(-2).choices[0].finish_reason, "stop");
  assert.equal(stopped.at(-1).usage.completion_tokens, 4);
  const { choices } = await chat(ai, { ...given, stop: ["nothing like it", "seed"] });
  assert.equal(choices[0].message.content, "a picture of ");
  assert.deepEqual(seen.requests.map(({ text }) => text.stop), [["ture of"], ["nothing like it", "seed"]]);
});

test("log-probabilities have OpenAI's shape", async (t) => {
  const { ai } = await client(t);
  const given = { seed: 2, modalities: ["text"], logprobs: true };
  const token = (text, top) => {
    const of = ({ token, bytes, logprob }) => ({ token, bytes, logprob });
    const all = likely(text, top);
    return { ...of(all), top_logprobs: all.top.map(of) };
  };
  const pieces = ["a", " picture", " of seed 2", " and 0"];
  const { choices } = await chat(ai, { ...given, top_logprobs: 3 });
  assert.deepEqual(choices[0].logprobs, { content: pieces.map((text) => token(text, 3)), refusal: null });
  const chunks = await collect(await chat(ai, { ...given, stream: true }));
  const told = chunks.map(({ choices }) => choices[0].logprobs);
  assert.deepEqual(told, [null, ...pieces.map((text) => ({ content: [token(text, 0)], refusal: null })), null]);
});

test("several answers have seeds of their own, and one usage", async (t) => {
  const { ai, seen } = await client(t);
  const { choices, usage } = await chat(ai, { n: 3, seed: 5, modalities: ["text"] });
  assert.deepEqual(
    choices.map(({ index, message }) => [index, message.content]),
    [5, 6, 7].map((seed, i) => [i, `a picture of seed ${seed} and 0`]),
  );
  assert.deepEqual(usage, { prompt_tokens: 5, completion_tokens: 12, total_tokens: 17, prompt_tokens_details: { cached_tokens: 2 } });
  const chunks = await collect(await chat(ai, { n: 2, seed: 8, stream: true, modalities: ["text"] }));
  assert.deepEqual([contentOf(chunks, 0), contentOf(chunks, 1)], ["a picture of seed 8 and 0", "a picture of seed 9 and 0"]);
  // Each call is one request, and has a seed of its own.
  await chat(ai, { n: 2, modalities: ["text"] });
  const [, one, other] = seen.requests;
  assert.equal(seen.requests.length, 3);
  assert.notEqual(one.seed, other.seed);
});

test("what cannot be honoured is refused with a sentence, and nothing runs", async (t) => {
  const { ai, seen } = await client(t);
  const part = (part) => ({ messages: [{ role: "user", content: [part] }] });
  const url = "https://a.b/c.png";
  for (const [body, param, options] of [
    [{ tools: [{ type: "function", function: { name: "f" } }] }, "tools"],
    [{ response_format: { type: "json_object" } }, "response_format"],
    [{ top_logprobs: 3 }, "top_logprobs"],
    [{ nonsense: 1 }, "nonsense"],
    [{ toString: 1 }, "toString"],
    [{ modalities: ["text", "audio"] }, "modalities"],
    [{ stream_options: { include_usage: true } }, "stream_options"],
    [{ stream: true, stream_options: { other: 1 } }, "stream_options.other"],
    [{ n: 0 }, "n"],
    [{ n: 1.5 }, "n"],
    [{ n: 1000 }, "n"],
    [{ messages: [] }, "messages"],
    [{ messages: undefined }, "messages"],
    [{ messages: [null] }, "messages[0].role"],
    [{ messages: [{ role: "tool", content: "5", tool_call_id: "x" }] }, "messages[0].role"],
    [{ messages: [{ role: "user", content: "x", name: "bob" }] }, "messages[0].name"],
    [{ messages: [...HELLO, { role: "assistant", content: null, tool_calls: [{}] }] }, "messages[1].tool_calls"],
    [{ messages: [{ role: "assistant", content: null }] }, "messages[0].content"],
    [part({ type: "input_audio", input_audio: {} }), "messages[0].content[0]"],
    [part({ type: "image_url", image_url: {} }), "messages[0].content[0].image_url"],
    [part({ type: "image_url", image_url: { url, detail: "high" } }), "messages[0].content[0].image_url.detail"],
    [part(null), "messages[0].content[0]"],
    [{}, "options.timeout", { timeout: 5 }],
  ]) {
    const failed = await chat(ai, body, options).then(assert.fail, (error) => error);
    assert.ok(failed instanceof BadRequestError && failed instanceof APIError, `${param}: ${failed}`);
    assert.deepEqual([failed.status, failed.code, failed.param, failed.type], [400, "bad-request", param, "invalid_request_error"]);
    assert.match(failed.message, /^400 .+\. .+\.$/s);
    assert.equal(failed.error.message, failed.message.slice(4));
  }
  await assert.rejects(chat(ai, { stop: ["a", ""] }), { status: 400, code: "bad-request" });
  const missing = await chat(ai, { model: "gpt-4o" }).then(assert.fail, (error) => error);
  assert.ok(missing instanceof NotFoundError);
  assert.deepEqual([missing.status, missing.code, missing.param], [404, "model_not_found", "model"]);
  assert.equal(seen.requests.length, 0);
});

test("errors keep their code: of the request, of the device, of the network", async (t) => {
  const failing = (code) =>
    fakeModule({
      run: async (_request, _pictures, tell) => {
        await tell({ type: "text", text: "so" });
        throw { code, message: `It is ${code}. Do something.` };
      },
    });
  for (const [code, Class, status] of [
    ["prompt-too-long", BadRequestError, 400],
    ["bad-option", BadRequestError, 400],
    ["image-damaged", BadRequestError, 400],
    ["too-large", BadRequestError, 400],
    ["fetch", APIError, undefined],
    ["device-lost", InternalServerError, 503],
    ["out-of-memory", InternalServerError, 500],
    ["not-finite", InternalServerError, 500],
  ]) {
    const { ai } = await client(t, failing(code));
    for (const call of [() => chat(ai), async () => collect(await chat(ai, { stream: true }))]) {
      const failed = await call().then(assert.fail, (error) => error);
      assert.ok(failed instanceof Class, `${code}: ${failed.constructor.name}`);
      assert.deepEqual([failed.status, failed.code], [status, code]);
      assert.match(failed.message, /Do something\.$/);
      assert.equal(failed.cause.name, "EmuError");
    }
  }
});

test("an abort: before, while an answer is made, in a stream, by leaving its loop; the next call works", async (t) => {
  const fake = gated();
  const { ai } = await client(t, fake);
  await assert.rejects(chat(ai, {}, { signal: AbortSignal.abort() }), (error) => error instanceof APIUserAbortError);

  const stop = new AbortController();
  const running = chat(ai, {}, { signal: stop.signal });
  await fake.arrived();
  stop.abort();
  await assert.rejects(running, (error) => error instanceof APIUserAbortError && error.status === undefined);
  fake.release();

  // As in the package `openai`: a stream that is aborted ends.
  for (const abort of [(stream) => stream.controller.abort(), (_, stop) => stop.abort()]) {
    const stop = new AbortController();
    const stream = await chat(ai, { stream: true, seed: 1 }, { signal: stop.signal });
    const chunks = [];
    for await (const chunk of stream) {
      chunks.push(chunk);
      if (chunks.length === 1) fake.arrived().then(fake.release);
      if (chunks.length === 2) abort(stream, stop);
    }
    assert.equal(chunks.length, 2);
    await assert.rejects(collect(stream), { code: "bad-request", message: /read before/ });
  }
  for await (const { choices } of await chat(ai, { stream: true })) {
    if (choices[0].delta.role) fake.arrived().then(fake.release);
    else break;
  }
  const last = chat(ai, { seed: 4, modalities: ["text"] });
  await fake.arrived();
  fake.release();
  assert.equal((await last).choices[0].message.content, "a picture of seed 4 and 0");
});

test("a stream as lines of JSON, for a service worker's response", async (t) => {
  const { ai, emu } = await client(t);
  const body = (await chat(ai, { stream: true, seed: 6, modalities: ["text"] })).toReadableStream();
  const lines = (await new Response(body).text()).trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(contentOf(lines), "a picture of seed 6 and 0");
  const left = (await chat(ai, { stream: true })).toReadableStream().getReader();
  await left.read();
  await left.cancel();
  assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
});

/** The pixels of a PNG file without filters. */
function readPng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const length = view.getUint32(33);
  assert.equal(new TextDecoder().decode(bytes.subarray(37, 41)), "IDAT");
  const rows = inflateSync(bytes.subarray(41, 41 + length));
  assert.equal(rows.length, height * (4 * width + 1));
  const data = [];
  for (let y = 0; y < height; y++) data.push(...rows.subarray(y * (4 * width + 1) + 1, (y + 1) * (4 * width + 1)));
  return { width, height, data };
}

test("pictures are drawn as PNG files in base64", async (t) => {
  const { ai, seen } = await client(t);
  const { created, data } = await ai.images.generate({ prompt: "a cat", n: 2, seed: 7, size: "64x32", response_format: "b64_json", steps: 4, negative_prompt: "dogs", quality: "auto" });
  assert.ok(created > 0);
  assert.deepEqual(data.map(({ seed, flagged }) => [seed, flagged]), [[7, null], [8, null]]);
  const png = Uint8Array.from(Buffer.from(data[0].b64_json, "base64"));
  assert.deepEqual([...png.subarray(0, 8)], [...PNG.subarray(0, 8)]);
  assert.deepEqual(readPng(png), { width: 2, height: 1, data: [...pixels().rgba] });
  const { parts, draw } = seen.requests[0];
  assert.deepEqual(parts, [{ text: "a cat" }]);
  assert.deepEqual([draw.width, draw.height, draw.steps, draw.negative], [64, 32, 4, "dogs"]);
  for (const [body, param] of [
    [{ size: "big" }, "size"],
    [{ response_format: "url" }, "response_format"],
    [{ output_format: "webp" }, "output_format"],
    [{ background: "transparent" }, "background"],
    [{ stream: true }, "stream"],
    [{ prompt: undefined }, "prompt"],
    [{ n: 0 }, "n"],
  ])
    await assert.rejects(ai.images.generate({ prompt: "a cat", ...body }), { status: 400, param });
  await assert.rejects(ai.images.generate({ prompt: "a cat" }, { signal: AbortSignal.abort() }), (error) => error instanceof APIUserAbortError);
});

test("the PNG encoder keeps every pixel and has right checksums", async () => {
  const { crc32 } = await import("node:zlib");
  for (const [width, height] of [[1, 1], [3, 5], [257, 130]]) {
    const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => (i * 7919) % 256);
    const png = await encodePng({ data, width, height });
    assert.deepEqual(readPng(png), { width, height, data: [...data] });
    const view = new DataView(png.buffer);
    for (let at = 8; at < png.length; at += view.getUint32(at) + 12) {
      const length = view.getUint32(at);
      if (crc32) assert.equal(view.getUint32(at + 8 + length), crc32(png.subarray(at + 4, at + 8 + length)));
    }
  }
});

test("the embedding of a picture is the mean of its embeddings; texts have none", async (t) => {
  const { ai } = await client(t);
  const input = `data:image/png;base64,${toBase64(PNG)}`;
  const embedding = [2, 3];
  assert.deepEqual(await ai.embeddings.create({ model: "test", input: [input, input] }), {
    object: "list",
    model: "test",
    data: [0, 1].map((index) => ({ object: "embedding", index, embedding })),
    usage: { prompt_tokens: 4, total_tokens: 4 },
  });
  assert.deepEqual((await ai.embeddings.create({ input })).data[0].embedding, embedding);
  for (const [body, param] of [
    [{ input: "a text" }, "input"],
    [{ input: [] }, "input"],
    [{ input: [[1, 2]] }, "input"],
    [{ input, dimensions: 2 }, "dimensions"],
    [{ input, encoding_format: "base64" }, "encoding_format"],
  ])
    await assert.rejects(ai.embeddings.create(body), { status: 400, param });
});

test("the loaded model is listed", async (t) => {
  const { ai } = await client(t);
  const { data } = await ai.models.list();
  assert.deepEqual(data.map(({ id, object, owned_by }) => [id, object, owned_by]), [["test", "model", "emu-webgpu"]]);
  assert.deepEqual(await collect(ai.models.list()), data);
  assert.deepEqual(await ai.models.retrieve("test"), data[0]);
  await assert.rejects(ai.models.retrieve("other"), { status: 404 });
});
