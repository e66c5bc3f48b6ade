/** Calls: previews, concurrent calls, aborts in every phase, invalid pictures. */

import assert from "node:assert/strict";

import * as native from "../lib/native.mjs";
import { across, PACK, picture } from "../lib/stage.mjs";

const REQUEST = "a fox on a blue background";
const [FOX] = await native.captions(PACK, [picture("fox.png")]);
/** Milliseconds, besides the step in progress. */
const PROMPT = 250;

across("previews come while a picture is drawn", {}, async (stage) => {
  await stage.load();
  const { told, image } = await stage.page.evaluate(async (request) => {
    const told = [];
    const onProgress = ({ phase, step, steps, preview }) => phase === "denoise" && told.push({ step, steps, preview: preview && lab.pixels(preview) });
    return { image: await lab.draw(request, { seed: 1, steps: 7, previewEvery: 3, onProgress }), told };
  }, REQUEST);
  assert.deepEqual(told.map(({ step, steps }) => `${step}/${steps}`), ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"]);
  const previews = told.filter(({ preview }) => preview);
  assert.deepEqual(previews.map(({ step }) => step), [3, 6]);
  for (const { preview } of previews) assert.ok(preview.width >= 8 && preview.height >= 8 && preview.width <= image.width);
  assert.notEqual(previews[0].preview.base64, previews[1].preview.base64);
});

across("calls made at once end as if made one after the other", {}, async (stage) => {
  await stage.load();
  const { together, apart, order } = await stage.page.evaluate(async (request) => {
    const fox = await lab.bytes("/pictures/fox.png");
    const order = [];
    const calls = [
      () => lab.draw(request, { seed: 5, steps: 3 }),
      () => lab.emu.caption(fox),
      () => lab.chat([fox, "what colour is the background?"], { images: false }).then(({ text }) => text),
      () => lab.emu.embed(fox).then((rows) => rows.map((row) => [...row])),
    ];
    const noting = calls.map((call, at) => call().finally(() => order.push(at)));
    const together = await Promise.all(noting);
    const apart = [];
    for (const call of calls) apart.push(await call());
    return { together, apart, order };
  }, REQUEST);
  assert.deepEqual(together, apart);
  assert.deepEqual(order, [0, 1, 2, 3]);
});

/** The call rejects at once; the worker stops after its current step. `steps` are the milliseconds of the longest step. */
function assertStopped(phase, { error, acted }, idle, steps) {
  assert.equal(error?.name, "AbortError", `${phase}: ${JSON.stringify(error)}`);
  assert.ok(acted <= PROMPT, `${phase}: rejected after ${acted.toFixed(0)} ms`);
  // Steps vary, and machines are shared.
  const bound = PROMPT + 3 * steps;
  assert.ok(idle <= bound, `${phase}: the worker went on for ${idle.toFixed(0)} ms, the bound is ${bound.toFixed(0)} ms`);
}

across("an abort ends a call in each of its phases, and the next call works", { devices: ["cpu", "webgpu"] }, async (stage, t) => {
  const { page, device } = stage;
  await stage.load();
  // Long enough to notice a worker that did not stop.
  const steps = device === "cpu" ? 60 : 12;
  const tokens = 400;
  const runs = {
    prefill: `lab.chat([fox, "what is this?"], { ...hooks, images: false, temperature: 20, seed: 7, maxNewTokens: ${tokens} })`,
    denoise: `lab.draw(${JSON.stringify(REQUEST)}, { ...hooks, seed: 1, steps: ${steps} })`,
    "decode-image": `lab.draw(${JSON.stringify(REQUEST)}, { ...hooks, seed: 1, steps: 2 })`,
  };
  runs.decode = runs.prefill;
  const caption = await page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png")));
  // Loads the decoder, and compiles its kernels.
  await page.evaluate((request) => lab.draw(request, { steps: 2 }), REQUEST);

  for (const phase of ["prefill", "decode", "denoise", "decode-image"]) {
    await t.test(phase, async (t) => {
      const nth = phase === "decode" || phase === "denoise" ? 2 : 1;
      const run = `(async () => {
        const fox = await lab.bytes("/pictures/fox.png");
        const ended = await lab.abortIn(${JSON.stringify(phase)}, ${nth}, (hooks) => ${runs[phase]});
        const idle = await lab.untilIdle();
        const start = performance.now();
        const said = await lab.emu.caption(fox);
        return { ended, idle, said, next: performance.now() - start };
      })()`;
      const { ended, idle, said, next } = await page.evaluate(run);
      // A whole caption takes longer than its longest step.
      assertStopped(phase, ended, idle, Math.max(ended.longest, next));
      assert.equal(said, caption);
      t.diagnostic(`rejected after ${ended.acted.toFixed(1)} ms, idle ${idle.toFixed(0)} ms later; longest step ${ended.longest.toFixed(0)} ms`);
    });
  }
});

across("an abort ends a load in each of its phases, and the next load works", { devices: ["cpu", "webgpu"] }, async (stage, t) => {
  // Only the first phase differs between devices.
  for (const phase of stage.device === "cpu" ? ["compile", "download", "upload"] : ["compile"]) {
    await t.test(phase, async () => {
      stage.store.faults.length = 0;
      if (phase === "download") stage.store.faults.push({ match: "safetensors", rate: 1 << 20 });
      const ended = await stage.page.evaluate(
        (phase, pack, device) => lab.abortIn(phase, 1, (hooks) => lab.Emu.load(pack, { device, ...hooks })),
        phase,
        stage.pack,
        stage.device,
      );
      // The load in progress ends at once, and so does its worker.
      assertStopped(phase, ended, 0, 0);
      stage.store.faults.length = 0;
      await stage.load();
      assert.equal(await stage.page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png"))), FOX);
      await stage.page.evaluate(() => lab.emu.dispose());
    });
  }
});

across("an abort while a call downloads what it needs leaves the rest as it was", {}, async (stage) => {
  await stage.load();
  stage.store.faults.push({ match: "decoder-", rate: 1 << 20 });
  const ended = await stage.page.evaluate((request) => lab.abortIn("download", 2, (hooks) => lab.draw(request, hooks)), REQUEST);
  const idle = await stage.page.evaluate(() => lab.untilIdle());
  assertStopped("download", ended, idle, ended.longest);
  assert.equal(await stage.page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png"))), FOX);
  stage.store.faults.length = 0;
  const drawn = await stage.page.evaluate((request) => lab.draw(request, { steps: 1 }), REQUEST);
  assert.ok(drawn.width > 0);
});

across("a call that is aborted before it began, or while it waits, does nothing", {}, async (stage) => {
  await stage.load();
  const { before, waiting, first, phases } = await stage.page.evaluate(async (request) => {
    const fox = await lab.bytes("/pictures/fox.png");
    const before = await lab.outcome(lab.emu.caption(fox, { signal: AbortSignal.abort() }));
    const phases = [];
    const controller = new AbortController();
    const first = lab.draw(request, { seed: 1, steps: 3 });
    const waiting = lab.outcome(lab.emu.caption(fox, { signal: controller.signal, onProgress: ({ phase }) => phases.push(phase) }));
    controller.abort(new Error("the page's own reason"));
    return { before, waiting: await waiting, first: (await first).width, phases };
  }, REQUEST);
  for (const { error } of [before, waiting]) assert.equal(error?.name, "AbortError");
  assert.ok(first > 0);
  assert.deepEqual(phases.filter((phase) => phase === "prefill" || phase === "decode"), []);
});

across("reset and dispose end every call", {}, async (stage) => {
  await stage.load();
  const { running, waiting, after, disposed, late } = await stage.page.evaluate(async (request) => {
    const fox = await lab.bytes("/pictures/fox.png");
    const calls = () => {
      const calls = [lab.outcome(lab.draw(request, { steps: 40 })), lab.outcome(lab.emu.caption(fox))];
      // The calls have been posted to the worker.
      return new Promise((done) => setTimeout(() => done(calls), 200));
    };
    const first = await calls();
    await lab.emu.reset();
    const [running, waiting] = await Promise.all(first);
    const after = await lab.emu.caption(fox);
    const second = await calls();
    await lab.emu.dispose();
    return { running, waiting, after, disposed: await Promise.all(second), late: await lab.outcome(lab.emu.caption(fox)) };
  }, REQUEST);
  for (const { error } of [running, waiting]) assert.equal(error?.name, "AbortError");
  assert.equal(after, FOX);
  for (const { error } of [...disposed, late]) assert.equal(error?.code, "disposed");
});

across("a picture that does not decode is an error of its own, and the next call works", {}, async (stage) => {
  await stage.load();
  const { errors, said } = await stage.page.evaluate(async () => {
    const fox = await lab.bytes("/pictures/fox.png");
    const pictures = [
      fox.subarray(0, fox.length >> 1),
      new TextEncoder().encode("This is no picture."),
      new Uint8Array(),
      new Blob(["<svg"], { type: "image/svg+xml" }),
      new URL("/pictures/nowhere.png", location.href),
      {},
    ];
    const errors = [];
    for (const picture of pictures) errors.push((await lab.outcome(lab.emu.caption(picture))).error);
    return { errors, said: await lab.emu.caption(fox) };
  });
  assert.deepEqual(errors.map((error) => [error?.name, error?.code]), errors.map(() => ["EmuError", "bad-image"]));
  // One sentence on the problem, one on the remedy.
  for (const { message } of errors) assert.match(message, /\. .+\.$/);
  assert.equal(said, FOX);
});
