// @ts-check
/* The page on the built package and both models: EMU_DEMO_PACKAGE=real [EMU_DEMO_BROWSER=firefox] node --test test/real.test.mjs */

import assert from "node:assert/strict";
import { test } from "node:test";

import { attach, example, idle, lastAnswer, noSmol, open, picture, real, say, start } from "./browser.mjs";

test("emu-mini reads, continues and draws", { skip: !real && "needs EMU_DEMO_PACKAGE=real and the built packages", timeout: 180_000 }, async () => {
  const world = await start();
  const { page, problems, requests } = await open(world.browser, world.origin, { query: "?model=mini&device=cpu" });
  page.setDefaultTimeout(60_000);

  // 1. A picture without text, and a question about it.
  await attach(page, picture("fox.png"));
  await page.click("#send");
  await idle(page);
  assert.match(await lastAnswer(page), /a fox on a blue background/);
  await say(page, "what colour is the background?");
  await idle(page);
  assert.match(await lastAnswer(page), /^blue/);

  // 2. A series of examples.
  await example(page, "Continue the series");
  await idle(page);
  assert.match(await lastAnswer(page), /^a calendar, green/);

  // 3. The same drawing twice with the same seed, with previews.
  await example(page, "a panda on a gray background");
  await page.waitForSelector(".preview canvas");
  await idle(page);
  await page.click(".drawn [aria-label^='Use seed']");
  await example(page, "a panda on a gray background");
  await idle(page);
  const drawings = await page.$$eval(".drawn img", (images) =>
    Promise.all(
      images.map(async (image) => {
        await /** @type {HTMLImageElement} */ (image).decode();
        const context = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(64, 64).getContext("2d"));
        context.drawImage(/** @type {HTMLImageElement} */ (image), 0, 0);
        return [...context.getImageData(0, 0, 64, 64).data];
      }),
    ),
  );
  assert.equal(drawings.length, 2);
  assert.deepEqual(drawings[0], drawings[1]);
  // Gray in the corner; a panda's white and black somewhere.
  const [red = 0, green = 0, blue = 0] = drawings[0] ?? [];
  assert.ok(Math.max(red, green, blue) - Math.min(red, green, blue) < 40, `the corner is ${red}, ${green}, ${blue}`);
  assert.ok(Math.max(...(drawings[0] ?? [])) > 200 && Math.min(...(drawings[0] ?? [])) < 60);

  // 4. No errors, and no requests to other hosts.
  assert.deepEqual(problems.filter((problem) => !problem.includes("No available adapters")), []);
  assert.deepEqual(requests.filter((url) => !url.startsWith(`${world.origin}/`) && !/^(blob|data):/.test(url)), []);
  await world.close();
});

test("emu-smol answers, names a drawing, and draws where it can", { skip: real ? noSmol : "needs EMU_DEMO_PACKAGE=real and the built packages", timeout: 600_000 }, async () => {
  const world = await start();
  const { page, problems, requests } = await open(world.browser, world.origin, { query: "?device=cpu" });
  page.setDefaultTimeout(120_000);

  // 1. Text only: the answer ends by itself.
  await example(page, "Hello! Who are you?");
  await idle(page);
  assert.match(await lastAnswer(page), /^[A-Z][^]*\d+ tokens · /);

  // 2. A drawing, in a conversation in progress.
  await page.$eval("#examples-all .example:has([src$='fox.png'])", (card) => /** @type {HTMLElement} */ (card).click());
  await page.waitForFunction(() => document.querySelectorAll(".turn").length === 2);
  await idle(page);
  assert.match(await lastAnswer(page), /fox/i);

  // 3. A picture and its caption, and a change to it.
  if (await page.$("#mode-draw input:enabled")) {
    for (const request of ["Draw a puppy on a red background", "now on a green background"]) {
      await say(page, request);
      await idle(page);
      assert.match(await page.$$eval(".answer", (answers) => [...(answers.at(-1)?.querySelectorAll("img, .said") ?? [])].map((one) => one.textContent || one.tagName).join(" ")), /^IMG I drew a/);
    }
  }

  assert.deepEqual(problems.filter((problem) => !problem.includes("No available adapters")), []);
  assert.deepEqual(requests.filter((url) => !url.startsWith(`${world.origin}/`) && !/^(blob|data):/.test(url)), []);
  assert.ok(!requests.some((url) => url.includes("emu-webgpu-mini")));
  await world.close();
});
