/** The openai package for JavaScript against a server with the fake engine (tests/serve/fake.rs). */

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP43+AAAARBAcAM0e2RAAAAAElFTkSuQmCC",
  "base64",
);
const url = `data:image/png;base64,${png.toString("base64")}`;
const model = "fake";
const client = new OpenAI({ maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const picture = { type: "image_url", image_url: { url } };

const tests = {
  async "caption"() {
    const messages = user([picture, { type: "text", text: "what is it?" }]);
    const { choices, usage } = await client.chat.completions.create({ model, messages });
    assert.equal(choices[0].message.content, "[-] 1: *what is it?");
    assert.equal(choices[0].finish_reason, "stop");
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  },

  async "turns with pictures"() {
    const messages = [
      { role: "system", content: "be brief" },
      ...user([picture, { type: "text", text: "?" }]),
      { role: "assistant", content: "a dog" },
      ...user([picture, picture]),
    ];
    const { choices } = await client.chat.completions.create({ model, messages, temperature: 0, n: 2 });
    assert.deepEqual(choices.map(({ message }) => message.content), ["[be brief] 2: **", "[be brief] 2: **"]);
  },

  async "stream"() {
    const options = { model, messages: user("count to 20"), stream: true, stream_options: { include_usage: true } };
    let [text, usage, chunks] = ["", null, 0];
    for await (const chunk of await client.chat.completions.create(options)) {
      chunks += 1;
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, Array.from({ length: 20 }, (_, i) => `${i + 1} `).join(""));
    assert.ok(chunks > 10 && usage.completion_tokens > 10);
  },

  async "the stream helper"() {
    const stream = client.chat.completions.stream({ model, messages: user("count to 9"), stop: "8" });
    assert.equal(await stream.finalContent(), "1 2 3 4 5 6 7 ");
  },

  async "stop and seed"() {
    const options = { model, messages: user("a"), temperature: 1, seed: 42, stop: ["2"], max_completion_tokens: 50 };
    const { choices } = await client.chat.completions.create(options);
    assert.equal(choices[0].message.content, "[-] 1: a seed 4");
  },

  async "leaving a stream"() {
    const stream = await client.chat.completions.create({ model, messages: user("count to 1000"), stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
    const after = await client.chat.completions.create({ model, messages: user("next") });
    assert.equal(after.choices[0].message.content, "[-] 1: next");
  },

  async "logprobs"() {
    const options = { model, messages: user("count to 3"), logprobs: true, top_logprobs: 1 };
    const { choices } = await client.chat.completions.create(options);
    assert.equal(choices[0].logprobs.content[0].top_logprobs[0].token, "t0");
  },

  async "a picture in the answer"() {
    const options = { model, messages: user("draw"), modalities: ["text", "image"], seed: 3 };
    const { choices } = await client.chat.completions.create(options);
    const parts = choices[0].message.content;
    assert.deepEqual(parts.map(({ type }) => type), ["text", "image_url", "text"]);
    assert.equal(parts[1].image_url.url, url);
    const messages = [...options.messages, { role: "assistant", content: parts }, ...user("again")];
    const next = await client.chat.completions.create({ model, messages });
    assert.equal(next.choices[0].message.content, "[-] 2: again");
  },

  async "completions"() {
    const { choices } = await client.completions.create({ model, prompt: ["a", "b"], max_tokens: 2 });
    assert.deepEqual(choices.map(({ text }) => text), [" and a", " and b"]);
    let text = "";
    for await (const chunk of await client.completions.create({ model, prompt: "c", stream: true }))
      text += chunk.choices[0].text;
    assert.equal(text, " and c again");
  },

  async "draw"() {
    const options = { model, prompt: "a dog", n: 2, size: "512x512", response_format: "b64_json", seed: 7 };
    const { data } = await client.images.generate(options);
    assert.equal(data.length, 2);
    assert.ok(Buffer.from(data[1].b64_json, "base64").equals(png));
    assert.equal(data[1].seed, 8);
  },

  async "blend"() {
    const image = [await toFile(png, "a.png"), await toFile(png, "b.png")];
    const { data } = await client.images.edit({ model, image, prompt: "both", size: "512x512" });
    assert.ok(Buffer.from(data[0].b64_json, "base64").equals(png));
    await client.images.edit({ model, image: await toFile(png, "a.png"), prompt: "one", n: 1 });
  },

  async "embeddings"() {
    const { data } = await client.embeddings.create({ model, input: [url, url] });
    assert.deepEqual([...data[1].embedding], [png.length, 1, 2]);
    const floats = await client.embeddings.create({ model, input: url, encoding_format: "float" });
    assert.deepEqual(floats.data[0].embedding, [png.length, 1, 2]);
  },

  async "models"() {
    const models = [];
    for await (const { id } of client.models.list()) models.push(id);
    assert.deepEqual(models, [model]);
    assert.equal((await client.models.retrieve(model)).owned_by, "tests");
  },

  async "errors"() {
    const chat = (options) => client.chat.completions.create({ model, messages: user("a"), ...options });
    const fails = async (call, type, status, code, param) => {
      await assert.rejects(call, (error) => {
        assert.ok(error instanceof type, `${error}`);
        assert.deepEqual([error.status, error.code, error.param ?? null], [status, code, param ?? null]);
        return true;
      });
    };
    const { AuthenticationError, BadRequestError, NotFoundError, InternalServerError, APIError } = OpenAI;
    const stranger = new OpenAI({ apiKey: "wrong", maxRetries: 0 });
    await fails(stranger.models.list(), AuthenticationError, 401, "invalid_api_key");
    await fails(chat({ model: "gpt-4" }), NotFoundError, 404, "model_not_found", "model");
    await fails(chat({ temperature: 9 }), BadRequestError, 400, "invalid_value", "temperature");
    await fails(chat({ tools: [{ type: "function" }] }), BadRequestError, 400, "unsupported_parameter", "tools");
    await fails(chat({ messages: user("too long") }), BadRequestError, 400, "context_length_exceeded");
    await fails(chat({ messages: user("fail") }), InternalServerError, 500, "device");
    await fails(chat({ messages: user("too long"), stream: true }), BadRequestError, 400, "context_length_exceeded");
    const bad = (address) => chat({ messages: user([{ type: "image_url", image_url: { url: address } }]) });
    const param = "messages[0].content[0].image_url.url";
    await fails(bad("data:image/png;base64,dGV4dA=="), BadRequestError, 400, "invalid_image_format", param);
    await fails(bad("http://127.0.0.1/a.png"), BadRequestError, 400, "image_fetch_disabled", param);
    await fails(chat({ messages: user("x".repeat(6 << 20)) }), APIError, 413, "request_too_large");
    const draw = client.images.generate({ model, prompt: "a", response_format: "url" });
    await fails(draw, BadRequestError, 400, "unsupported_parameter", "response_format");
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test().catch((error) => {
    console.error(`${name}: ${error.stack}`);
    process.exit(1);
  });
}
console.log(`openai for JavaScript: ${Object.keys(tests).length} passed`);
