/** Cost of a token and of a denoising step, in calls of the browser's API. The bounds are those of docs/performance.md. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { across, PACK } from "../lib/stage.mjs";

const { config } = JSON.parse(await readFile(join(PACK, "emu.json"), "utf8"));
const TOKENS = 40;

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
