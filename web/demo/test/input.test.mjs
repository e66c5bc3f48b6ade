// @ts-check
/* Ways to attach pictures: file, drop, paste, camera, video. */

import assert from "node:assert/strict";
import { readFile, writeFile, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { attach, calls, idle, open, picture, say, start } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

/** @param {object} [script] */
const visit = (script) => open(world.browser, world.origin, { script });
/** @param {import("puppeteer-core").Page} page */
const tiles = (page) => page.$$eval("#tray .tile:not(.waiting)", ({ length }) => length);

/** Dispatches the events of a drop or a paste with a real file. @param {import("puppeteer-core").Page} page @param {string[]}
 * events @param {string} name @param {string} type */
async function give(page, events, name, type) {
  const base64 = (await readFile(picture("fox.png"))).toString("base64");
  return page.evaluate(
    (events, base64, name, type) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], name, { type }));
      const target = /** @type {HTMLElement} */ (document.getElementById("prompt"));
      return events.map((event) => {
        const made = event === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }) : new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true });
        target.dispatchEvent(made);
        return { taken: made.defaultPrevented, overlay: !document.getElementById("drop")?.hidden };
      });
    },
    events,
    base64,
    name,
    type,
  );
}

test("files are attached, shown and removed", async () => {
  const { page, context } = await visit();
  await attach(page, picture("fox.png"), picture("whale.png"));
  assert.deepEqual(await page.$$eval("#tray .tile img", (images) => images.map((image) => image.getAttribute("alt"))), ["fox.png", "whale.png"]);
  await page.click("[aria-label='Remove fox.png']");
  assert.equal(await tiles(page), 1);
  await say(page, "what is it?");
  await idle(page);
  assert.deepEqual((await calls(page, "chat"))[0].messages[0].content.map((/** @type {any} */ part) => part.image?.size ?? part.text), [3108, "what is it?"]);
  assert.equal(await tiles(page), 0);
  await context.close();
});

test("a picture is dropped", async () => {
  const { page, context, problems } = await visit();
  assert.deepEqual(await give(page, ["dragover", "drop"], "fox.png", "image/png"), [
    { taken: true, overlay: true },
    { taken: true, overlay: false },
  ]);
  await page.waitForSelector("#tray .tile img");
  await page.click("#send");
  await idle(page);
  assert.deepEqual((await calls(page, "caption"))[0].image, { blob: "image/png", size: 2684 });
  assert.deepEqual(problems, []);
  await context.close();
});

test("a picture is pasted, pasted words stay words", async () => {
  const { page, context } = await visit();
  assert.deepEqual((await give(page, ["paste"], "fox.png", "image/png"))[0]?.taken, true);
  await page.waitForSelector("#tray .tile img");
  assert.equal((await give(page, ["paste"], "note.txt", "text/plain"))[0]?.taken, false);
  assert.equal(await tiles(page), 1);
  await context.close();
});

test("a file that is no picture is refused in words, beside a drawing that is one", async () => {
  const { page, context } = await visit();
  await give(page, ["drop"], "fox.txt", "text/plain").catch(() => undefined);
  const folder = await mkdtemp(join(tmpdir(), "emu-demo-"));
  await writeFile(join(folder, "broken.png"), "this is no picture");
  const [chooser] = await Promise.all([page.waitForFileChooser(), page.click("#attach")]);
  await writeFile(join(folder, "drawing.svg"), "<svg xmlns='http://www.w3.org/2000/svg' width='64' height='32'><circle cx='32' cy='16' r='9'/></svg>");
  await chooser.accept([join(folder, "broken.png"), picture("whale.png"), join(folder, "drawing.svg")]);
  await page.waitForFunction(() => document.querySelector("#composer-problem:not([hidden])"));
  assert.equal(await page.$eval("#composer-problem", ({ textContent }) => textContent), "“broken.png” cannot be read as a picture. Choose a PNG, JPEG, GIF, WebP, AVIF, BMP or SVG file.");
  // The valid ones are attached, an SVG too.
  await page.waitForSelector("#tray [alt='whale.png']");
  await page.waitForSelector("#tray [alt='drawing.svg']");
  await context.close();
});

test("marks place pictures in the text, and must match", async () => {
  const { page, context } = await visit();
  await attach(page, picture("fox.png"), picture("whale.png"));
  await page.$eval("#tray .mark .button", (button) => /** @type {HTMLElement} */ (button).click());
  await page.keyboard.type(" and");
  await page.keyboard.press("Enter");
  assert.match(await page.$eval("#composer-problem", ({ textContent }) => textContent ?? ""), /^The text has 1 <image> mark, .* Give each image one mark/);
  assert.equal((await calls(page, "chat")).length, 0);
  await page.keyboard.type(" <image>?");
  await page.keyboard.press("Enter");
  await idle(page);
  assert.deepEqual((await calls(page, "chat"))[0].messages[0].content.map((/** @type {any} */ part) => part.text ?? part.type), ["image", " and ", "image", "?"]);
  await context.close();
});

test("a picture comes from the camera, which is then off", async () => {
  const { page, context } = await visit();
  await page.click("#camera-open");
  await page.waitForSelector("#camera-shoot:enabled");
  await page.click("#camera-shoot");
  await page.waitForSelector("#tray [alt='Camera picture']");
  assert.deepEqual(await page.$eval("#camera", (dialog) => [/** @type {HTMLDialogElement} */ (dialog).open, /** @type {HTMLVideoElement | null} */ (dialog.querySelector("video"))?.srcObject]), [false, null]);
  await page.click("#camera-open");
  await page.waitForSelector("#camera-shoot:enabled");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog[open]"));
  assert.equal(await page.$eval("#camera-view", (view) => /** @type {HTMLVideoElement} */ (view).srcObject), null);
  assert.equal(await tiles(page), 1);
  await context.close();
});

test("a video becomes frames", async () => {
  const { page, context } = await visit();
  const folder = await mkdtemp(join(tmpdir(), "emu-demo-"));
  // The package extracts the frames; the test double makes up its own.
  await writeFile(join(folder, "run.webm"), "frames");
  await attach(page, join(folder, "run.webm"));
  assert.match(await page.$eval("#tray .tile .badge", ({ textContent }) => textContent ?? ""), /8 frames/);
  await say(page, "what happens?");
  await idle(page);
  const [video, text] = (await calls(page, "chat"))[0].messages[0].content;
  assert.equal(video.frames.length, 8);
  assert.equal(video.frames[0].blob, "image/png");
  assert.equal(text.text, "what happens?");
  await context.close();
});
