/** Options of sampling in browsers: on the device they choose the tokens that they choose on the host, where logits are read back. */

import assert from "node:assert/strict";

import { across } from "../lib/stage.mjs";

/** Options that the sampling kernel applies, alone and together. */
const SAMPLED = [
  { presencePenalty: 1.5 },
  { frequencyPenalty: 2 },
  { temperature: 12, seed: 5 },
  { temperature: 12, minP: 0.2, seed: 5 },
  { temperature: 9, minP: 0.01, topK: 40, topP: 0.95, presencePenalty: 0.5, frequencyPenalty: 0.5, repetitionPenalty: 1.1, seed: 6 },
];

across("options of sampling, stop texts, log-probabilities and several answers", { devices: ["webgpu", "cpu"] }, async (stage, t) => {
  await stage.load();
  const { page } = stage;
  const ask = (options) =>
    page.evaluate(async (options) => {
      const content = [await lab.bytes("/pictures/chick-telescope.png"), "what is in the picture?"];
      const events = [];
      const call = { images: false, maxNewTokens: 10, ...options };
      for await (const event of lab.emu.chat([{ role: "user", content }], call)) events.push(event);
      const of = (type) => events.filter((event) => event.type === type);
      const text = (index) => of("text").filter((event) => event.index === index).map(({ text }) => text).join("");
      const tokens = of("text").flatMap(({ logprobs = [] }) => logprobs);
      return { texts: of("usage").map(({ index }) => text(index)), tokens, usages: of("usage") };
    }, options);

  const plain = await ask({});
  const told = await ask({ topLogprobs: 2 });

  await t.test("log-probabilities change no token, and are those of the choices", () => {
    assert.deepEqual(told.texts, plain.texts);
    assert.equal(plain.tokens.length, 0);
    assert.ok(told.tokens.length > 0);
    for (const { id, logprob, top } of told.tokens) {
      assert.deepEqual([top.length, top[0].id, top[0].logprob], [2, id, logprob]);
      assert.ok(logprob <= 0 && top[1].logprob <= logprob);
      assert.ok(Math.exp(logprob) + Math.exp(top[1].logprob) < 1.001);
    }
    assert.equal(told.tokens.map(({ token }) => token).join("").trim(), told.texts[0].trim());
  });

  await t.test("a token that is banned gives way to the next", async () => {
    const [{ id, top }] = told.tokens;
    const { tokens } = await ask({ logitBias: { [id]: -100 }, topLogprobs: 2 });
    assert.equal(tokens[0].id, top[1].id);
    assert.deepEqual(tokens[0].top.map(({ id }) => id), top.map(({ id }) => id));
    assert.ok(tokens.every((token) => token.id !== id));
    const onDevice = await ask({ logitBias: { [id]: -100 } });
    assert.equal(onDevice.texts[0], (await ask({ logitBias: { [id]: -100 }, logprobs: true })).texts[0]);
    assert.notEqual(onDevice.texts[0], plain.texts[0]);
  });

  await t.test("the device chooses the host's tokens", async () => {
    const changed = [];
    for (const options of SAMPLED) {
      const { texts } = await ask(options);
      assert.deepEqual(texts, (await ask({ ...options, logprobs: true })).texts, JSON.stringify(options));
      changed.push(texts[0] !== plain.texts[0]);
    }
    t.diagnostic(`${changed.filter(Boolean).length} of ${changed.length} answers differ from the plain one`);
    assert.ok(changed.filter(Boolean).length >= 2);
  });

  await t.test("nothing of a stop text is given", async () => {
    const whole = plain.texts[0];
    const stop = whole.slice(3, 7);
    const { texts, usages } = await ask({ stop: ["never said", stop] });
    assert.equal(texts[0], whole.slice(0, whole.indexOf(stop)));
    assert.equal(usages[0].finish, "stop");
    assert.ok(usages[0].tokens < plain.usages[0].tokens || plain.usages[0].tokens < 4);
    // The next call is not affected.
    assert.deepEqual((await ask({})).texts, plain.texts);
  });

  await t.test("several answers are those of consecutive seeds, from one prefill", async () => {
    const hot = { temperature: 3 };
    const { texts, usages } = await ask({ ...hot, n: 3, seed: 20 });
    const alone = [];
    for (const seed of [20, 21, 22]) alone.push((await ask({ ...hot, seed })).texts[0]);
    assert.deepEqual(texts, alone);
    for (const { promptTokens, cachedTokens } of usages.slice(1)) assert.equal(cachedTokens, promptTokens - 1);
    const [{ seconds, firstTokenSeconds, prefillTokensPerSecond }] = usages;
    assert.ok(firstTokenSeconds > 0 && seconds >= firstTokenSeconds && prefillTokensPerSecond > 0);
  });

  await t.test("what is out of range is refused by name", async () => {
    const refused = (options) => ask(options).then(assert.fail, (error) => error.message);
    for (const [options, words] of [
      [{ minP: 1.5 }, /min-p is 1\.5/],
      [{ presencePenalty: 3 }, /presence-penalty is 3/],
      [{ frequencyPenalty: NaN }, /frequency-penalty is NaN/],
      [{ logitBias: { 5: 200 } }, /logit-bias is 200 for the token 5/],
      [{ logitBias: { 4000000: 1 } }, /logit-bias is for the token 4000000/],
      [{ logitBias: { word: 1 } }, /logitBias is "word"/],
      [{ topLogprobs: 21 }, /top-logprobs is 21/],
      [{ n: 0 }, /option n is 0/],
      [{ beams: 2, n: 2 }, /beam search gives one answer/],
      [{ beams: 2, presencePenalty: 1 }, /presence-penalty/],
      [{ stop: "" }, /stop text/],
    ]) {
      assert.match(await refused(options), words, JSON.stringify(options));
    }
    assert.deepEqual((await ask({})).texts, plain.texts);
  });
});
