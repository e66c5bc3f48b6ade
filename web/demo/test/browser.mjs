// @ts-check
/* Starts Chromium and the page in it, for the tests. */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import puppeteer from "puppeteer-core";

/** @typedef {(request: import("node:http").IncomingMessage) => Promise<object>} Interfere */
/** @type {(mounts: { prefix: string, folder: string }[], options?: { interfere?: Interfere }) => Promise<{ url: string, close: () => Promise<void> }>} */
const serve = (await import(String(new URL("../../server/serve.mjs", import.meta.url)))).serve;

/** @param {string} path */
const folder = (path) => fileURLToPath(new URL(path, import.meta.url));
const page = { prefix: "/", folder: folder("..") };
const pack = existsSync(folder("../../mini/pack")) ? "../../mini/pack" : "../../../models/emu-mini";
/** Why tests of emu-smol itself are skipped; `false` if its pack is built. */
export const noSmol = !existsSync(folder("../../smol/pack/emu.json")) && "web/smol/pack is not built";
/* Most tests need Chromium's own protocol. `real.test.mjs` runs in Firefox too. */
const firefox = process.env["EMU_DEMO_BROWSER"] === "firefox";
/** Whether the page runs on the built package; otherwise on the test double. */
export const real = process.env["EMU_DEMO_PACKAGE"] === "real";
const mounts = real
  ? [
      page,
      { prefix: "/emu-webgpu/", folder: folder("../../package") },
      { prefix: "/emu-webgpu-mini/", folder: folder("../../mini") },
      { prefix: "/emu-webgpu-mini/pack/", folder: folder(pack) },
      { prefix: "/emu-webgpu-smol/", folder: folder("../../smol") },
    ]
  : [{ prefix: "/", folder: folder("fake") }, page];

/** Serves the page. @param {Interfere} [interfere] */
export async function host(interfere) {
  const { url, close } = await serve(mounts, interfere && { interfere });
  return { origin: url.slice(0, -1), close };
}

/** Serves the page and starts a browser. @param {Interfere} [interfere] */
export async function start(interfere) {
  const { origin, close } = await host(interfere);
  const browser = await puppeteer.launch(
    firefox
      ? { browser: "firefox", executablePath: process.env["FIREFOX"] ?? "/usr/bin/firefox" }
      : {
          executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
          args: ["--headless=new", "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        },
  );
  return {
    browser,
    origin,
    close: async () => {
      await browser.close();
      await close();
    },
  };
}

/** The page with emu-mini: it has examples of every kind, and each question is sent alone. Without a query: emu-smol. */
export const MINI = "?model=mini";

/**
 * Opens the page in its own profile. Errors are collected in `problems`, requested URLs in `requests`.
 * @param {import("puppeteer-core").Browser} browser
 * @param {string} origin
 * @param {{ script?: object, view?: import("puppeteer-core").Viewport, dark?: boolean, query?: string, context?: import("puppeteer-core").BrowserContext }} [how]
 */
export async function open(browser, origin, { script = {}, view = { width: 1100, height: 800 }, dark = false, query = MINI, context } = {}) {
  context ??= await browser.createBrowserContext();
  const page = await context.newPage();
  /** @type {string[]} */
  const problems = [];
  /** @type {string[]} */
  const requests = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && problems.push(message.text()));
  page.on("request", (request) => requests.push(request.url()));
  await page.setViewport(view);
  if (!firefox) await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  await page.evaluateOnNewDocument((given) => Object.assign(globalThis, { emuFake: given }), script);
  await page.goto(`${origin}/${query}`);
  await page.waitForFunction(() => document.getElementById("model-chip")?.dataset["state"] !== "checking");
  return { page, context, problems, requests };
}

/** @typedef {import("puppeteer-core").Page} Page */

/** Path of a demo picture of emu-mini. @param {string} name */
export const picture = (name) => fileURLToPath(new URL(`../../../models/emu-mini/demo/${name}`, import.meta.url));

/** Waits until no job is running. @param {Page} page */
export async function idle(page) {
  await page.waitForFunction(() => document.getElementById("stop")?.hidden && !document.querySelector("[aria-busy]"));
}

/** Types a message and sends it with Enter. @param {Page} page @param {string} text */
export async function say(page, text) {
  await page.focus("#prompt");
  await page.keyboard.type(text);
  await page.keyboard.press("Enter");
}

/** Attaches files as the file dialog would. @param {Page} page @param {string[]} files */
export async function attach(page, ...files) {
  const before = await page.$$eval("#tray .tile", (tiles) => tiles.length);
  const [chooser] = await Promise.all([page.waitForFileChooser(), page.click("#attach")]);
  await chooser.accept(files);
  await page.waitForFunction((count) => document.querySelectorAll("#tray .tile:not(.waiting)").length === count, {}, before + files.length);
}

/** Clicks an example on the first page or in the dialog. @param {Page} page @param {string} text */
export async function example(page, text) {
  await page.waitForSelector(".example");
  const before = await page.$$eval(".turn", ({ length }) => length);
  await page.$eval(`::-p-xpath(//div[@id="examples-all"]//button[contains(., "${text}")])`, (card) => /** @type {HTMLElement} */ (card).click());
  await page.waitForFunction((count) => document.querySelectorAll(".turn").length > count, {}, before);
}

/** The page's calls of the package, by name. @param {Page} page @param {string} [name] @returns {Promise<any[]>} */
export async function calls(page, name) {
  const all = await page.evaluate(() => {
    /** Blobs cannot be serialized: replaced by their type and size. @param {any} value @returns {any} */
    const plain = (value) => {
      if (value instanceof Blob) return { blob: value.type, size: value.size };
      if (Array.isArray(value)) return value.map(plain);
      if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
      return value;
    };
    return plain(/** @type {any} */ (globalThis).emuFake.calls ?? []);
  });
  return name ? all.filter((/** @type {any} */ call) => call.name === name) : all;
}

/** The text of the last answer. @param {Page} page */
export const lastAnswer = (page) => page.$$eval(".answer", (answers) => /** @type {HTMLElement} */ (answers.at(-1))?.innerText.trim() ?? "");

/** All screen reader announcements, as one text. @param {Page} page */
export const heard = (page) => page.$eval("#announcer", (region) => /** @type {HTMLElement} */ (region).textContent ?? "");
