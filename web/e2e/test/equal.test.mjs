/** The page's results equal the native program's, and only what they need is fetched. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import * as native from "../lib/native.mjs";
import { assertAlike, fromPage } from "../lib/pictures.mjs";
import { across, PACK, picture } from "../lib/stage.mjs";

const { config } = JSON.parse(await readFile(join(PACK, "emu.json"), "utf8"));
const SCENES = ["fox.png", "panda-target.png", "whale-bed.png"];
const QUESTIONS = ["what is on the left?", "how many objects are there?", "what colour is the background?"];
const REQUEST = "create a picture of a banana on a red background";

/** Of 255. The CPU does the same arithmetic. WebGPU sums in a different order: 1 was measured on both software GPUs. */
const BOUNDS = { cpu: 2, webgpu: 4 };

across("results equal the native program's", { devices: ["cpu", "webgpu"] }, async (stage, t) => {
  const { page, device } = stage;
  assert.equal((await stage.load()).device.kind, device);

  await t.test("captions, asked for at once", async () => {
    const expected = await native.captions(PACK, SCENES.map(picture));
    const ask = (names) => Promise.all(names.map((name) => lab.emu.caption(new URL(`/pictures/${name}`, location.href))));
    assert.deepEqual(await page.evaluate(ask, SCENES), expected);
  });

  await t.test("answers, in text and in tokens", async () => {
    const ask = async (question) => {
      const { text, usage } = await lab.chat([await lab.bytes("/pictures/chick-telescope.png"), question], { images: false });
      return { text, promptTokens: usage.promptTokens, tokens: usage.tokens };
    };
    for (const question of QUESTIONS) {
      const expected = await native.answer(PACK, [picture("chick-telescope.png")], question);
      assert.deepEqual(await page.evaluate(ask, question), expected, question);
    }
  });

  await t.test("only one module and two components were fetched for that", async () => {
    assert.deepEqual(stage.fetched.map((file) => file.split(/[-.]/)[0]), ["emu", "lm", "tokenizer", "vision"]);
    const modules = stage.site.log.map(({ path }) => path).filter((path) => path.endsWith(".wasm"));
    assert.deepEqual(modules, [`/node_modules/emu-webgpu/wasm/${device}/emu_web_bg.wasm`]);
  });

  await t.test("a drawing at the same seed", async (t) => {
    // A software GPU takes a minute for all steps.
    const steps = device === "cpu" ? undefined : 2;
    const expected = await native.drawing(PACK, REQUEST, { seed: 7, steps });
    const { drawn, previews } = await page.evaluate(
      async (request, steps) => {
        const previews = [];
        const onProgress = ({ preview, step }) => preview && previews.push({ step, width: preview.width });
        return { drawn: await lab.draw(request, { seed: 7, steps, previewEvery: 1, onProgress }), previews };
      },
      REQUEST,
      steps,
    );
    assert.equal(drawn.seed, 7);
    // The last step is followed by the picture itself instead of a preview.
    assert.equal(previews.length, (steps ?? config.decoder.steps) - 1);
    assert.deepEqual(previews.map(({ step }) => step), previews.map((_, at) => at + 1));
    assert.ok(previews.every(({ width }) => width > 0));
    t.diagnostic(`greatest difference ${assertAlike(fromPage(drawn), expected, BOUNDS[device])}/255`);
    const other = await native.drawing(PACK, REQUEST, { seed: 8, steps });
    assert.throws(() => assertAlike(fromPage(drawn), other, BOUNDS[device]), /is off by/, "another seed draws another picture");
  });

  await t.test("the decoder was fetched for the drawing", () => {
    assert.ok(stage.fetched.some((file) => file.startsWith("decoder-")));
  });
});

across("a blend of two pictures equals the native program's", {}, async (stage, t) => {
  await stage.load();
  const names = ["fox.png", "whale.png"];
  const expected = await native.drawing(PACK, "", { seed: 3, steps: 6, pictures: names.map(picture) });
  const drawn = await stage.page.evaluate(async (names) => lab.draw(await Promise.all(names.map((name) => lab.bytes(`/pictures/${name}`))), { seed: 3, steps: 6 }), names);
  t.diagnostic(`greatest difference ${assertAlike(fromPage(drawn), expected, BOUNDS.cpu)}/255`);
});
