// @ts-check
/* What leaves the page, what is stored, and how large the page is. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { attach, calls, example, host, idle, open, picture, say, start } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

const root = fileURLToPath(new URL("..", import.meta.url));
/** @param {import("puppeteer-core").Page} page */
const stored = (page) => page.evaluate(async () => ({ local: { ...localStorage }, session: { ...sessionStorage }, cookies: document.cookie, databases: (await indexedDB.databases()).length, caches: (await caches.keys()).length }));
const NOTHING = { local: {}, session: {}, cookies: "", databases: 0, caches: 0 };

test("nothing is asked of another origin, nothing is kept", async () => {
  const { page, context, requests, problems } = await open(world.browser, world.origin);
  await attach(page, picture("fox.png"));
  await say(page, "what?");
  await idle(page);
  await example(page, "panda");
  await idle(page);
  await page.click("#panel-toggle");
  await page.type("#s-steps", "5");
  await page.click("#new");
  const foreign = requests.filter((url) => !url.startsWith(`${world.origin}/`) && !/^(blob|data):/.test(url));
  assert.deepEqual(foreign, []);
  assert.ok(requests.length > 20);
  assert.deepEqual(await stored(page), NOTHING);
  assert.deepEqual(problems, []);
  await context.close();
});

test("the policy lets only the page's own host be read, and the one of ?model=", async () => {
  const elsewhere = await host();
  /** @param {import("puppeteer-core").Page} page */
  const reach = (page) => page.evaluate((url) => fetch(url, { mode: "no-cors" }).then(() => true, () => false), `${elsewhere.origin}/style.css`);
  const plain = await open(world.browser, world.origin);
  assert.equal(await reach(plain.page), false);
  assert.ok(plain.problems.some((problem) => problem.includes("Content Security Policy")));
  // Nor can code be injected, or the policy be loosened.
  assert.equal(await plain.page.evaluate(() => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: "globalThis.injected = true" }));
    return "injected" in globalThis;
  }), false);
  const named = await open(world.browser, world.origin, { query: `?model=${encodeURIComponent(`${elsewhere.origin}/pack/`)}` });
  assert.equal(await reach(named.page), true);
  assert.equal((await calls(named.page, "check"))[0].url, `${elsewhere.origin}/pack/`);
  await plain.context.close();
  await named.context.close();
  await elsewhere.close();
});

test("settings are remembered only where that was asked", async () => {
  const first = await open(world.browser, world.origin);
  const { context } = first;
  await first.page.click("#panel-toggle");
  await first.page.type("#s-steps", "5");
  await first.page.reload();
  await first.page.waitForFunction(() => document.getElementById("model-chip")?.dataset["state"] === "idle");
  assert.equal(await first.page.$eval("#s-steps", (field) => /** @type {HTMLInputElement} */ (field).value), "");

  await first.page.click("#panel-toggle");
  await first.page.type("#s-steps", "7");
  await first.page.$eval("#remember", (box) => /** @type {HTMLElement} */ (box).click());
  await first.page.type("#s-guidance", "2");
  const second = await open(world.browser, world.origin, { context });
  assert.deepEqual(await second.page.$$eval("#s-steps, #s-guidance", (fields) => fields.map((field) => /** @type {HTMLInputElement} */ (field).value)), ["7", "2"]);
  assert.equal(await second.page.$eval("#remember", (box) => /** @type {HTMLInputElement} */ (box).checked), true);
  assert.doesNotMatch(JSON.stringify(await stored(second.page)), /panda|prompt/);

  await second.page.click("#panel-toggle");
  await second.page.$eval("#remember", (box) => /** @type {HTMLElement} */ (box).click());
  assert.deepEqual(await stored(second.page), NOTHING);
  await context.close();
});

test("the model is not kept where the visitor does not want that", async () => {
  const { page, context } = await open(world.browser, world.origin);
  await page.click("#keep-field");
  await page.click("#load");
  await idle(page);
  assert.equal((await calls(page, "load"))[0].options.cache, "none");
  await context.close();
});

test("the policy names the hash of the import map, and allows nothing inline", async () => {
  const html = await readFile(`${root}index.html`, "utf8");
  const map = /<script type="importmap">([^]*?)<\/script>/.exec(html)?.[1] ?? "";
  const hash = createHash("sha256").update(map).digest("base64");
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(html)?.[1] ?? "";
  assert.ok(policy.includes(`'sha256-${hash}'`), `the policy needs 'sha256-${hash}'`);
  assert.match(policy, /^default-src 'none';/);
  assert.doesNotMatch(policy, /'unsafe/);
  assert.doesNotMatch(html, /\s(on\w+|style)=/);
});

test("the page's scripts stay under 60 kB, what it fetches only when asked apart", async () => {
  const seen = new Set();
  const sizes = /** @type {number[]} */ ([]);
  /** @param {string} name */
  const follow = async (name) => {
    if (seen.has(name)) return;
    seen.add(name);
    const text = await readFile(`${root}dist/${name}`, "utf8");
    sizes.push(Buffer.byteLength(text));
    for (const [, next] of text.matchAll(/(?:from|import) ?"\.\/([\w-]+\.js)"/g)) if (next) await follow(next);
  };
  await follow("main.js");
  const sum = sizes.reduce((total, size) => total + size, 0);
  assert.ok(seen.size > 15 && seen.has("bench.js") && !seen.has("measure.js"), [...seen].join(", "));
  assert.ok(sum > 10_000 && sum < 60_000, `${sum} bytes`);
});
