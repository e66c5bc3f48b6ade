/** Cost of a token and of a denoising step, in calls of the browser's API. The bounds are those of docs/performance.md. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { across, PACK } from "../lib/stage.mjs";

const { config } = JSON.parse(await readFile(join(PACK, "emu.json"), "utf8"));
const TOKENS = 40;

/** Turns of a chat about a picture. */
const TURNS = [
  "what is on the left?",
  "there are a panda, a chick, a telescope, a banana and a whale on a red background. what is on the right?",
  "there is a fox above a box, and a bed to the left of a tree on a blue background. how many objects are there?",
  "there are two pandas above a target, and a cat to the right of a dog. what colour is the background?",
  "what is it?",
];

across("a turn of a chat computes only what is new", { devices: ["webgpu", "cpu"] }, async (stage, t) => {
  await stage.load();
  const { turns, alone } = await stage.page.evaluate(async (questions) => {
    const picture = await lab.bytes("/pictures/chick-telescope.png");
    const answer = async (messages) => {
      let [text, usage] = ["", null];
      for await (const event of lab.emu.chat(messages, { images: false, maxNewTokens: 8 })) {
        if (event.type === "text") text += event.text;
        else usage = event;
      }
      return { text, usage };
    };
    const messages = [];
    const turns = [];
    for (const [i, question] of questions.entries()) {
      messages.push({ role: "user", content: i === 0 ? [picture, question] : question });
      turns.push(await answer(messages));
      messages.push({ role: "assistant", content: turns.at(-1).text });
    }
    // Another conversation takes the place of this one, of which nothing but the beginning is then left.
    await answer([{ role: "user", content: "what is it?" }]);
    return { turns, alone: await answer(messages.slice(0, -1)) };
  }, TURNS);
  t.diagnostic(turns.map(({ usage }) => `${usage.prefillTokens} of ${usage.promptTokens}`).join(", "));
  for (const [i, { usage }] of turns.entries()) {
    assert.equal(usage.cachedTokens + usage.prefillTokens, usage.promptTokens);
    // The answer before may be spelled with other tokens than it was generated with.
    if (i > 0) assert.ok(usage.cachedTokens >= turns[i - 1].usage.promptTokens, JSON.stringify(usage));
  }
  const [fourth, fifth] = turns.slice(3).map(({ usage }) => usage);
  assert.ok(fifth.promptTokens > 90 && fifth.prefillTokens <= fifth.promptTokens - fourth.promptTokens, JSON.stringify(fifth));
  // The same question without what was kept: the same answer, at the cost of the whole conversation.
  assert.ok(alone.usage.prefillTokens > fifth.promptTokens - 4, JSON.stringify(alone.usage));
  assert.equal(alone.text, turns[4].text);
  assert.equal(alone.usage.promptTokens, fifth.promptTokens);
});

across("tokens and steps cost what they may", { devices: ["webgpu", "cpu"] }, async (stage, t) => {
  await stage.load();
  const { tokens, token, step, needed } = await stage.page.evaluate(async (tokens) => {
    const fox = await lab.bytes("/pictures/fox.png");
    const cost = async (call) => {
      const before = await lab.emu.costs();
      const made = await call();
      const after = await lab.emu.costs();
      return { made, costs: Object.fromEntries(Object.keys(after).map((key) => [key, after[key] - before[key]])) };
    };
    const hot = { images: false, temperature: 20, seed: 7 };
    const answer = (maxNewTokens) => async () => (await lab.chat([fox, "what is this?"], { ...hot, maxNewTokens })).usage.tokens;
    const each = (more, less, made) => Object.fromEntries(Object.keys(more).map((key) => [key, (more[key] - less[key]) / made]));
    // One-time work is done before.
    await answer(tokens)();
    const [long, short] = [await cost(answer(tokens)), await cost(answer(1))];
    const draw = (steps) => () => lab.draw("a fox on a blue background", { seed: 1, steps });
    await draw(2)();
    const [more, less] = [await cost(draw(4)), await cost(draw(1))];
    return {
      tokens: long.made - short.made,
      token: each(long.costs, short.costs, long.made - short.made),
      step: each(more.costs, less.costs, 3),
      needed: (await lab.emu.costs()).tokenWeightBytes,
    };
  }, TOKENS);
  t.diagnostic(`a token: ${JSON.stringify(token)}; a step: ${JSON.stringify(step)}`);
  assert.equal(tokens, TOKENS - 1, "the answer ended early: use another seed");
  const moved = token.weightBytes / needed;
  assert.ok(moved > 0.99 && moved <= 1.02, `weights moved ${moved} times`);
  if (stage.device === "cpu") {
    assert.equal(token.launches + token.submits + token.readBacks + step.launches, 0);
    return;
  }
  const layers = config.emu.lm.layers;
  assert.ok(token.launches > layers && token.launches <= 8 * layers + 12, `${token.launches} launches a token`);
  // The dispatches, together with the copy of the token.
  assert.ok(token.submits > 0.9 && token.submits <= 1.5, `${token.submits} submissions a token`);
  assert.ok(token.readBacks > 0.9 && token.readBacks <= 1.1, `${token.readBacks} read-backs a token`);
  assert.ok(token.readBackBytes > 0 && token.readBackBytes <= 64, `${token.readBackBytes} bytes back for a token`);
  assert.ok(step.launches > 0 && step.launches <= 775, `${step.launches} launches a step`);
  assert.equal(step.readBacks, 0);
});
