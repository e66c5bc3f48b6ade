// @ts-check
/* The model: facts before any download, loading, devices, other packs, the cache, the benchmark. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { calls, host, idle, lastAnswer, open, say, start } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

/** @param {object} [script] @param {object} [how] */
const visit = (script, how) => open(world.browser, world.origin, { script, ...how });
/** @param {import("puppeteer-core").Page} page @param {string} selector */
const text = (page, selector) => page.$eval(selector, (element) => /** @type {HTMLElement} */ (element).innerText);
/** @param {import("puppeteer-core").Page} page @param {string} state */
const becomes = (page, state) => page.waitForFunction((wanted) => document.getElementById("model-chip")?.dataset["state"] === wanted, {}, state);

test("the size is told before anything is loaded, and nothing is loaded unasked", async () => {
  const { page, context } = await visit();
  const welcome = await text(page, "#welcome");
  for (const part of ["emu-mini", "64 × 64 pixels", "9.8 MB", "9.3 MB more", "CPU", "CC-BY-4.0", "software WebGPU adapter"]) assert.ok(welcome.includes(part), part);
  assert.equal(await text(page, "#load"), "Download emu-mini (9.8 MB)");
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual((await calls(page)).map(({ name }) => name), ["check"]);
  await context.close();
});

test("loading shows bytes, can be stopped, and goes on", async () => {
  const { page, context } = await visit({ pace: 60 });
  await page.click("#load");
  await page.waitForFunction(() => /[\d.]+ (kB )?of 9\.8 MB/.test(document.getElementById("welcome-detail")?.textContent ?? ""));
  assert.ok((await page.$eval("#welcome-bar", (bar) => /** @type {HTMLProgressElement} */ (bar).value)) > 0);
  await page.keyboard.press("Escape");
  await becomes(page, "idle");
  await idle(page);
  await page.click("#load");
  await becomes(page, "ready");
  assert.match(await text(page, "#welcome-ready"), /Ready/);
  await page.click("#panel-toggle");
  await page.waitForSelector("#progress-bars progress");
  const bars = await page.$$eval("#progress-bars progress", (found) => found.map((bar) => `${bar.getAttribute("aria-label")} ${/** @type {HTMLProgressElement} */ (bar).position}`));
  assert.deepEqual(bars, ["Vision encoder: Download 1", "Vision encoder: To memory 1", "Language model: Download 1", "Language model: To memory 1"]);
  await context.close();
});

test("a load that fails can be tried again", async () => {
  const { page, context } = await visit({ fail: { load: { code: "wrong-hash", message: "lm-1.safetensors is damaged. Load it again.", times: 1 } } });
  await page.click("#load");
  await page.waitForSelector("#welcome-problem:not([hidden])");
  assert.equal(await text(page, "#welcome-problem"), "lm-1.safetensors is damaged. Load it again.");
  await page.waitForSelector("#load:not([hidden])");
  await idle(page);
  await page.click("#load");
  await becomes(page, "ready");
  assert.equal(await page.$("#welcome-problem:not([hidden])"), null);
  await context.close();
});

test("a machine that cannot run the model is told so before any download", async () => {
  const reasons = ["The GPU lacks the feature shader-f16, which this pack needs."];
  const { page, context } = await visit({ support: { supported: false, device: null, reasons } });
  await becomes(page, "unsupported");
  assert.equal(await text(page, "#reasons"), reasons[0]);
  assert.equal(await page.$("#load:not([hidden])"), null);
  await context.close();
});

test("a pack that is not there is told, and looked for again", async () => {
  const { page, context } = await visit({ fail: { check: { code: "not-found", message: "There is no emu.json at that address. Check it.", times: 1 } } });
  await becomes(page, "unreachable");
  assert.equal(await text(page, "#reasons"), "There is no emu.json at that address. Check it.");
  await page.click("#recheck");
  await becomes(page, "idle");
  await context.close();
});

test("the address chooses model and device", async () => {
  const { page, context } = await visit({}, { query: `?model=${encodeURIComponent(`${world.origin}/packs/other/emu.json`)}&device=webgpu` });
  assert.deepEqual((await calls(page, "check"))[0], { name: "check", url: `${world.origin}/packs/other/emu.json`, options: { device: "webgpu" } });
  assert.equal(await page.$eval("#device", (select) => /** @type {HTMLSelectElement} */ (select).value), "webgpu");
  assert.equal(await page.$eval("#model-form :checked", (radio) => /** @type {HTMLInputElement} */ (radio).value), "other");
  assert.equal(await page.$eval("#model-url", (field) => /** @type {HTMLInputElement} */ (field).value), `${world.origin}/packs/other/emu.json`);
  await page.click("#panel-toggle");
  await page.click("#model-form [value=smol]");
  await Promise.all([page.waitForNavigation(), page.click("#model-form button")]);
  assert.equal(page.url(), `${world.origin}/?device=webgpu`);
  await context.close();
});

test("another model asks before it ends a conversation", async () => {
  const { page, context } = await visit();
  await say(page, "hello");
  await idle(page);
  await page.click("#panel-toggle");
  await page.click("#model-form [value=other]");
  await page.type("#model-url", "/packs/big/");
  await page.click("#model-form button");
  await page.waitForSelector("#confirm[open]");
  await page.click("#confirm button[value=no]");
  assert.equal(page.url(), `${world.origin}/?model=mini`);
  await page.click("#model-form button");
  await page.waitForSelector("#confirm[open]");
  await Promise.all([page.waitForNavigation(), page.click("#confirm-yes")]);
  assert.equal(new URL(page.url()).searchParams.get("model"), "/packs/big/");
  await context.close();
});

test("a page whose module for WebGPU is still to come computes on the CPU and says so", async () => {
  const html = readFileSync(new URL("../index.html", import.meta.url), "utf8").replace("<html ", '<html data-webgpu="pending" ');
  const { origin, close } = await host(async (request) => (request.url?.startsWith("/?") ? { page: html } : {}));
  const { page, context } = await open(world.browser, origin, { query: "?device=webgpu" });
  assert.deepEqual((await calls(page, "check"))[0].options, { device: "cpu" });
  assert.match(await text(page, "#pending"), /load the page again/);
  assert.ok(await page.$eval("#device", (select) => /** @type {HTMLSelectElement} */ (select).disabled));
  await context.close();
  await close();
  const whole = await visit({}, { query: "?device=webgpu" });
  assert.equal(await whole.page.$("#pending:not([hidden])"), null);
  await whole.context.close();
});

test("another device lets the loaded model go", async () => {
  const { page, context } = await visit();
  await say(page, "hello");
  await idle(page);
  await page.click("#panel-toggle");
  await page.select("#device", "cpu");
  await becomes(page, "idle");
  assert.equal((await calls(page, "dispose")).length, 1);
  await say(page, "again");
  await idle(page);
  assert.deepEqual((await calls(page, "load")).map(({ options }) => options.device), ["auto", "cpu"]);
  await context.close();
});

test("a large download is asked about first", async () => {
  const plan = [{ component: "vision", download: 2e9, resident: 2e9, cached: 0 }, { component: "lm", download: 7e9, resident: 7e9, cached: 0 }];
  const { page, context } = await visit({ support: { plan } });
  await say(page, "hello");
  await page.waitForSelector("#confirm[open]");
  assert.match(await text(page, "#confirm"), /Download 9\.0 GB\?/);
  await page.click("#confirm button[value=no]");
  await idle(page);
  assert.match(await lastAnswer(page), /Stopped/);
  assert.equal((await calls(page, "load")).length, 0);
  await page.click(".answer .button");
  await page.waitForSelector("#confirm[open]");
  await page.click("#confirm-yes");
  await idle(page);
  assert.match(await lastAnswer(page), /a chick/);
  await context.close();
});

test("models that are kept can be seen and deleted", async () => {
  const url = `${world.origin}/emu-webgpu-mini/pack/`;
  const { page, context } = await visit({ cached: [{ url, name: "emu-mini", bytes: 19143760, complete: true }, { url: "https://example.org/x/", name: "x", bytes: 4e6, complete: false }] });
  assert.match(await text(page, "#fact-download"), /already here/);
  await page.click("#panel-toggle");
  await page.waitForFunction(() => document.querySelectorAll("#cache-list li").length === 2);
  assert.match(await text(page, "#cache-list"), /19\.1 MB[^]*4\.0 MB, not all of it/);
  await page.$eval("[aria-label='Delete emu-mini from this device']", (button) => /** @type {HTMLElement} */ (button).click());
  await page.waitForSelector("#confirm[open]");
  await page.click("#confirm-yes");
  await page.waitForFunction(() => document.querySelectorAll("#cache-list li").length === 1);
  assert.equal(await text(page, "#fact-download"), "9.8 MB");
  await context.close();
});

test("the panel tells adapter, limits and the memory plan", async () => {
  const { page, context } = await visit();
  await page.click("#panel-toggle");
  await page.waitForFunction(() => document.querySelectorAll("#plan-rows tr").length === 3);
  const facts = await text(page, "#device-facts");
  for (const part of ["SwiftShader", "268 MB", "134 MB", "256 invocations", "shader-f16"]) assert.ok(facts.includes(part), part);
  assert.match(await text(page, "#memory"), /Vision encoder\s+5\.8 MB\s+0 bytes\s+11\.7 MB[^]*Draw\s+38\.3 MB at once · fits/);
  await context.close();
});

test("the benchmark gives JSON to copy", async () => {
  const { page, context } = await visit();
  await context.overridePermissions(world.origin, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
  await page.click("#panel-toggle");
  await page.$eval("#bench-run", (button) => /** @type {HTMLElement} */ (button).click());
  await page.waitForSelector("#bench-result:not([hidden])");
  await page.$eval("#bench-copy", (button) => /** @type {HTMLElement} */ (button).click());
  await page.waitForSelector("#bench-copy.done");
  const result = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  assert.equal(result.benchmark, 1);
  assert.equal(result.model.name, "emu-mini");
  assert.equal(result.load.already_loaded, false);
  assert.ok(result.load.ms > 0 && result.load.phases_ms["download vision"] > 0);
  // A step of the test double takes 15 ms; timers may be late but never early.
  assert.ok(result.draw.steps === 24 && result.draw.ms_per_step >= 14, JSON.stringify(result.draw));
  assert.equal(result.chat.tokens, 2);
  const each = { submits: 2, read_backs: 1, read_back_bytes: 4 };
  assert.deepEqual(result.chat.per_token, { launches: 36, ...each, weight_bytes: 1010, weight_bytes_over_needed: 1.01 });
  assert.deepEqual(result.draw.per_step, { launches: 218, ...each, weight_bytes: 5000 });
  assert.equal(result.pipelines, 7);
  assert.equal((await calls(page, "caption")).length, result.caption.runs);
  await context.close();
});
