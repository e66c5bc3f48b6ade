// @ts-check
/* Drawing: previews, seeds, blending, and the actions of a picture. */

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { attach, calls, example, idle, lastAnswer, open, picture, say, start } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

/** @param {object} [script] */
const visit = (script) => open(world.browser, world.origin, { script });
/** Pixels of the last element that matches, as text. @param {import("puppeteer-core").Page} page @param {string} selector */
const pixels = (page, selector) =>
  page.$$eval(selector, async (found) => {
    const element = /** @type {HTMLImageElement | HTMLCanvasElement} */ (found.at(-1));
    if (element instanceof HTMLImageElement) await element.decode();
    const canvas = new OffscreenCanvas(64, 64);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.drawImage(element, 0, 0);
    return [...context.getImageData(0, 0, 64, 64).data].join();
  });

test("the picture is seen while it is drawn", async () => {
  const { page, context, problems } = await visit({ pace: 50 });
  await page.click("#mode-draw");
  await say(page, "a panda on a gray background");
  await page.waitForSelector(".preview canvas");
  const early = await pixels(page, ".preview canvas");
  await page.waitForFunction(() => /step (1[6-9]|2\d) of 24/.test(document.querySelector(".turn .status-detail")?.textContent ?? ""));
  const late = await pixels(page, ".preview canvas");
  await idle(page);
  const final = await pixels(page, ".drawn img");
  assert.equal(new Set([early, late, final]).size, 3);
  assert.equal(await page.$(".preview"), null);
  assert.match(await lastAnswer(page), /^seed \d+ · 24 steps · [\d.]+ s$/);
  const shown = await page.$eval(".drawn img", (image) => {
    const { width } = image.getBoundingClientRect();
    return { width, rendering: getComputedStyle(image).imageRendering, alt: image.getAttribute("alt") };
  });
  assert.deepEqual(shown, { width: 256, rendering: "pixelated", alt: "Drawing for: a panda on a gray background" });
  assert.deepEqual(problems, []);
  await context.close();
});

test("Escape stops a drawing, and drawing works again", async () => {
  const { page, context } = await visit({ pace: 50 });
  await page.click("#mode-draw");
  await say(page, "a panda");
  await page.waitForSelector(".preview canvas");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector(".answer")?.textContent?.includes("Stopped."));
  assert.equal(await page.$(".preview"), null);
  await idle(page);
  await page.click(".answer .footer .button");
  await page.waitForSelector(".drawn img");
  await context.close();
});

test("a seed can be kept, another can be drawn", async () => {
  const { page, context } = await visit();
  await page.click("#mode-draw");
  await say(page, "a panda");
  await idle(page);
  const first = await pixels(page, ".drawn img");
  await page.click(".drawn [aria-label='Draw another with a new seed']");
  await page.waitForFunction(() => document.querySelectorAll(".drawn").length === 2);
  await idle(page);
  assert.notEqual(await pixels(page, ".drawn img"), first);
  await page.click(".drawn [aria-label^='Use seed']");
  await say(page, "a panda");
  await page.waitForFunction(() => document.querySelectorAll(".drawn").length === 3);
  await idle(page);
  assert.equal(await pixels(page, ".drawn img"), first);
  const seeds = (await calls(page, "draw")).map(({ options }) => options.seed);
  assert.equal(seeds[2], seeds[0]);
  assert.notEqual(seeds[1], seeds[0]);
  await context.close();
});

test("two pictures are blended, words go with them", async () => {
  const { page, context } = await visit();
  await example(page, "2 pictures become one");
  await idle(page);
  await attach(page, picture("fox.png"));
  await say(page, "as a drawing");
  await idle(page);
  const [blend, styled] = (await calls(page, "draw")).map(({ parts }) => parts.map((/** @type {any} */ part) => part.type));
  assert.deepEqual(blend, ["image", "image"]);
  assert.deepEqual(styled, ["image", "text"]);
  await context.close();
});

test("settings of drawing reach the call", async () => {
  const { page, context } = await visit();
  await page.click("#panel-toggle");
  for (const [name, value] of Object.entries({ seed: "9", steps: "6", guidance: "3.5", previewEvery: "3", negative: "a cat" })) await page.type(`#s-${name}`, value);
  await page.select("#s-scheduler", "dpm++");
  await page.click("#mode-draw");
  await say(page, "a dog");
  await idle(page);
  assert.deepEqual((await calls(page, "draw"))[0].options, { seed: 9, steps: 6, guidance: 3.5, previewEvery: 3, negative: "a cat", scheduler: "dpm++", retry: true });
  assert.match(await lastAnswer(page), /^seed 9 · 6 steps/);
  await context.close();
});

test("a picture is copied, saved, and used again", async () => {
  const { page, context } = await visit();
  await context.overridePermissions(world.origin, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
  const folder = await mkdtemp(join(tmpdir(), "emu-demo-"));
  const session = await page.createCDPSession();
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder, browserContextId: /** @type {any} */ (context.id) });
  await page.click("#panel-toggle");
  await page.type("#s-seed", "5");
  await page.click("#mode-draw");
  await say(page, "a dog");
  await idle(page);
  await page.click("[aria-label='Copy picture']");
  await page.waitForSelector(".drawn .done");
  assert.deepEqual(await page.evaluate(async () => (await navigator.clipboard.read())[0]?.types), ["image/png"]);

  await page.click("[aria-label='Download picture']");
  let names = /** @type {string[]} */ ([]);
  for (let i = 0; i < 50 && !names.includes("emu-5.png"); i += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    names = await readdir(folder);
  }
  assert.deepEqual(names, ["emu-5.png"]);
  assert.equal((await readFile(join(folder, "emu-5.png"))).subarray(1, 4).toString(), "PNG");

  await page.click("[aria-label='Use it in the next message']");
  assert.equal(await page.$$eval("#tray .tile", ({ length }) => length), 1);
  await page.click("#mode-chat");
  await page.click("#send");
  await idle(page);
  assert.equal((await calls(page, "caption"))[0].image.blob, "image/png");
  await context.close();
});

test("a model that does not draw offers no drawing", async () => {
  const model = { name: "reader", license: "MIT", attribution: "", imageSize: 224, draws: null, checks: false, converses: false };
  const { page, context } = await visit({ support: { model } });
  assert.equal(await page.$eval("#mode-draw input", (radio) => /** @type {HTMLInputElement} */ (radio).disabled), true);
  assert.match(await page.$eval("#welcome", (welcome) => /** @type {HTMLElement} */ (welcome).innerText), /224 × 224 pixels and does not draw/);
  await context.close();
});
