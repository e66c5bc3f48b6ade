// @ts-check
/* Screenshots of the page in its main states, for review:
 *
 *     [EMU_DEMO_PACKAGE=real] node test/shots.mjs FOLDER [STATE]... */

import { mkdir } from "node:fs/promises";
import { Transform } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";

import { attach, example, idle, MINI, noSmol, open, picture, real, say, start } from "./browser.mjs";

/** @typedef {import("puppeteer-core").Page} Page */

const [out = "shots", ...wanted] = process.argv.slice(2);
await mkdir(out, { recursive: true });

/** Throttles weights to the speed of a slow connection, so that loading is visible. */
const slow = () => new Transform({ transform: (chunk, _encoding, done) => void setTimeout(done, 40, null, chunk) });
let slowly = false;
const { browser, origin, close } = await start(async ({ url }) => (slowly && url?.endsWith(".safetensors") ? { body: (/** @type {import("node:stream").Readable} */ stream) => stream.pipe(slow()) } : {}));

const desktop = { width: 1280, height: 860 };
const phone = { width: 390, height: 844, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
const looks = [
  { name: "light", view: desktop, dark: false },
  { name: "dark", view: desktop, dark: true },
  { name: "phone", view: phone, dark: false },
  { name: "phone-dark", view: phone, dark: true },
];

/** @type {Record<string, { script?: object, query?: string, act: (page: Page) => Promise<unknown> }>} */
const states = {
  first: { query: real && noSmol ? MINI : "", act: (page) => page.waitForSelector(".example.drawing") },
  light: { act: (page) => page.waitForSelector(".example.drawing") },
  alone: { query: "?model=packs/other/", act: (page) => page.waitForSelector("#load:not([hidden])") },
  talk: {
    query: real && noSmol ? MINI : "",
    script: { imageInChat: "first", answer: "I drew a dog on a red background." },
    act: async (page) => {
      await example(page, "Draw a puppy");
      await idle(page);
    },
  },
  loading: {
    script: { pace: 120 },
    act: async (page) => {
      slowly = true;
      await page.click("#load");
      await page.waitForFunction(() => document.getElementById("welcome-status")?.textContent?.startsWith("Downl") && /** @type {HTMLProgressElement} */ (document.getElementById("welcome-bar")).value > 0.5);
    },
  },
  chat: {
    act: async (page) => {
      await example(page, "Continue the series");
      await idle(page);
      await attach(page, picture("whale-bed.png"));
      await say(page, "what is on the left?");
      await idle(page);
      await say(page, "what is on the right?");
      await idle(page);
    },
  },
  drawing: {
    script: { pace: 60 },
    act: async (page) => {
      await example(page, "a panda on a gray background");
      await page.waitForFunction(() => /step (8|9|1\d) /.test(document.querySelector(".turn .status-detail")?.textContent ?? ""));
    },
  },
  drawn: {
    act: async (page) => {
      await example(page, "a banana on a red background");
      await idle(page);
      await example(page, "2 pictures become one");
      await idle(page);
    },
  },
  error: {
    script: { fail: { check: { code: "not-found", message: "There is no emu.json at that address. Check the pack's address.", times: 3 } } },
    query: "?model=packs/nowhere/",
    act: async (page) => {
      await say(page, "what is on the left?");
      await page.waitForSelector(".error");
    },
  },
  panel: {
    act: async (page) => {
      await example(page, "a panda on a gray background");
      await idle(page);
      await page.click("#panel-toggle");
    },
  },
  device: {
    act: async (page) => {
      await example(page, "a panda on a gray background");
      await idle(page);
      await page.click("#panel-toggle");
      await page.$eval("#device", (select) => select.scrollIntoView());
    },
  },
  kept: {
    script: { cached: [{ url: `${origin}/emu-webgpu-mini/pack/`, name: "emu-mini", bytes: 19143760, complete: true }] },
    act: async (page) => {
      if (real) {
        await page.click("#load");
        await idle(page);
      }
      await page.click("#panel-toggle");
      await page.$eval("#bench-run", (button) => /** @type {HTMLElement} */ (button).click());
      await page.waitForSelector("#bench-result:not([hidden])");
      await page.$eval("#panel", (panel) => panel.scrollTo(0, 1e6));
    },
  },
  tray: {
    act: async (page) => {
      await attach(page, picture("fox.png"), picture("whale.png"));
      await page.click("#mode-draw");
    },
  },
  examples: {
    act: async (page) => {
      await page.waitForSelector("#examples-open:not([hidden])");
      await page.click("#examples-open");
    },
  },
};

for (const { name: look, view, dark } of looks) {
  for (const [state, { script = {}, query = MINI, act }] of Object.entries(states)) {
    if (wanted.length && !wanted.includes(state)) continue;
    slowly = false;
    const { page, context } = await open(browser, origin, { script, view, dark, query });
    page.setDefaultTimeout(90_000);
    await act(page);
    await wait(250);
    await page.screenshot({ path: `${out}/${state}-${look}.png` });
    await context.close();
  }
}
await close();
