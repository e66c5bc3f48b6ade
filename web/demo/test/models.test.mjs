// @ts-check
/* The bundled models: which one the page opens with, its text on each, and conversations with emu-smol. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { attach, calls, example, host, idle, lastAnswer, MINI, open, picture, say, start } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

/** The page without a query. @param {object} [script] @param {object} [how] */
const visit = (script, how) => open(world.browser, world.origin, { script, query: "", ...how });
/** @param {import("puppeteer-core").Page} page @param {string} selector */
const text = (page, selector) => page.$eval(selector, (element) => /** @type {HTMLElement} */ (element).innerText);
/** The visible cards of the first page. @param {import("puppeteer-core").Page} page */
const cards = async (page) => {
  await page.waitForSelector("#examples-list .example");
  return page.$$eval("#examples-list .example", (found) => found.filter((card) => card.checkVisibility()).map((card) => /** @type {HTMLElement} */ (card).innerText.replace(/\s+/g, " ")));
};
const DRAWN = { imageInChat: "first", answer: "I drew a dog on a red background." };

test("the page opens with emu-smol, says what it is and what it costs, and offers the light one", async () => {
  const { page, context, requests, problems } = await visit();
  const welcome = await text(page, "#welcome");
  for (const part of ["emu-smol", "very small language model", "often wrong", "260 × 260 pixels", "107 MB", "9.3 MB more", "emu-mini, about 14 MB", "The first thing you send downloads the model (107 MB)"]) {
    assert.ok(welcome.includes(part), part);
  }
  assert.ok(!welcome.includes("could not be fetched"));
  assert.equal(await text(page, "#load"), "Download emu-smol (107 MB)");
  assert.match(await text(page, ".fine"), /^A very small model, and often wrong\./);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual((await calls(page)).map(({ name, url }) => [name, url]), [["check", `${world.origin}/emu-webgpu-smol/pack/`]]);
  assert.ok(!requests.some((url) => url.includes("emu-webgpu-mini")));
  assert.deepEqual(problems, []);
  await context.close();
});

test("the light one is an address away, and so is the way back; both keep the device", async () => {
  const { page, context } = await visit({}, { query: "?device=cpu" });
  await Promise.all([page.waitForNavigation(), page.click("#welcome [data-open=mini]")]);
  assert.equal(page.url(), `${world.origin}/?device=cpu&model=mini`);
  await page.waitForFunction(() => document.getElementById("model-chip")?.dataset["state"] === "idle");
  assert.match(await text(page, "#welcome"), /trained from scratch on drawings[^]*emu-smol, about 120 MB/);
  assert.doesNotMatch(await text(page, "body"), /often wrong\.|could not be fetched/);
  await Promise.all([page.waitForNavigation(), page.click("#welcome [data-open=smol]")]);
  assert.equal(page.url(), `${world.origin}/?device=cpu`);
  await context.close();
});

test("the panel lists the bundled ones and another, and opens what is chosen", async () => {
  const { page, context } = await visit();
  await page.click("#panel-toggle");
  assert.deepEqual(await page.$$eval("#model-form label.check", (labels) => labels.map((label) => /** @type {HTMLElement} */ (label).innerText.split(":")[0])), ["emu-smol", "emu-mini", "Another pack, by its address"]);
  assert.equal(await page.$eval("#model-form :checked", (radio) => /** @type {HTMLInputElement} */ (radio).value), "smol");
  // The choice "other" needs a URL.
  await page.click("#model-form [value=other]");
  await page.click("#model-form button");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "model-url");
  await page.click("#model-form [value=mini]");
  await Promise.all([page.waitForNavigation(), page.click("#model-form button")]);
  assert.equal(page.url(), `${world.origin}/?model=mini`);
  await context.close();
});

test("a page that was put together without emu-smol opens with emu-mini and says so", async () => {
  const html = readFileSync(new URL("../index.html", import.meta.url), "utf8").replace("<html ", '<html data-models="mini" ');
  const { origin, close } = await host(async (request) => (/^\/(\?|$)/.test(request.url ?? "") ? { page: html } : {}));
  for (const query of ["", "?model=smol"]) {
    const { page, context, requests } = await open(world.browser, origin, { query });
    assert.equal((await calls(page, "check"))[0].url, `${origin}/emu-webgpu-mini/pack/`);
    const welcome = await text(page, "#welcome");
    assert.match(welcome, /emu-smol, which talks, could not be fetched/);
    assert.doesNotMatch(welcome, /about 120 MB/);
    await page.click("#panel-toggle");
    assert.doesNotMatch(await text(page, "#model-form"), /emu-smol/);
    assert.ok(!requests.some((url) => url.includes("emu-webgpu-smol")));
    await context.close();
  }
  await close();
});

test("each bundled model has its examples, another has none, and drawings wait for a model that draws", async () => {
  const smol = await visit();
  await smol.page.waitForFunction(() => document.body.classList.contains("draws"));
  const seen = await cards(smol.page);
  assert.ok(seen.includes("Say Hello! Who are you?") && seen.includes("Draw Draw a puppy on a red background"), seen.join(" | "));
  assert.ok(!seen.some((words) => /Continue the series|Blend/.test(words)), seen.join(" | "));
  assert.deepEqual(await smol.page.$$eval("#examples-list .example", (found) => found.filter((card) => card.querySelector(".verb")?.textContent === "Say").map((card) => card.querySelector("use")?.getAttribute("href"))), Array(4).fill("#i-chat"));
  await smol.context.close();

  const model = { name: "emu-smol", license: "MIT", attribution: "", imageSize: 260, draws: null, checks: false, converses: true };
  const mute = await visit({ support: { model } });
  assert.deepEqual((await cards(mute.page)).filter((words) => words.startsWith("Draw")), []);
  assert.match(await text(mute.page, "#welcome .card"), /model with eyes\. It talks, names what it sees, and is often wrong\.\s+It sees pictures at 260 × 260 pixels and does not draw/);
  await mute.page.click("#examples-open");
  assert.doesNotMatch(await text(mute.page, "#examples-all"), /puppy|Have it draw/);
  await mute.context.close();

  const mini = await visit({}, { query: MINI });
  await mini.page.waitForFunction(() => document.body.classList.contains("draws"));
  assert.ok((await cards(mini.page)).some((words) => words.startsWith("Continue the series")));
  await mini.context.close();

  const other = await visit({}, { query: "?model=packs/x/" });
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(await other.page.$("#examples:not([hidden]), #examples-open:not([hidden])"), null);
  assert.ok(!other.requests.some((url) => url.includes("/examples/")));
  assert.match(await text(other.page, ".fine"), /^Small models make mistakes\./);
  await other.context.close();
});

test("a conversation goes along, and a question is not about the latest picture", async () => {
  const { page, context } = await visit({ answer: "A fox." });
  await attach(page, picture("fox.png"));
  await say(page, "What is this?");
  await idle(page);
  assert.equal(await page.$("#tray .about"), null);
  await say(page, "Is it red?");
  await idle(page);
  const [, second] = await calls(page, "chat");
  assert.deepEqual(second.messages.map((/** @type {any} */ { role, content }) => [role, ...content.map((/** @type {any} */ part) => part.text ?? part.type)]), [
    ["user", "image", "What is this?"],
    ["assistant", "A fox."],
    ["user", "Is it red?"],
  ]);
  // The setting overrides the default.
  await page.click("#panel-toggle");
  await page.select("#s-context", "pictures");
  assert.ok(await page.$("#tray .about"));
  await say(page, "And now?");
  await idle(page);
  assert.deepEqual((await calls(page, "chat"))[2].messages.map((/** @type {any} */ { content }) => content.length), [2]);
  await context.close();
});

test("a request is answered with the picture and then the words, which alone go along", async () => {
  const { page, context, problems } = await visit(DRAWN);
  await example(page, "Draw a puppy on a red background");
  await page.waitForSelector(".preview canvas");
  await idle(page);
  assert.equal(await page.$$eval(".answer .said, .answer .drawn img", (found) => found.map(({ tagName }) => tagName).join()), "IMG,P");
  assert.equal(await page.$(".preview"), null);
  // No text was generated token by token, so there is no speed.
  assert.match(await lastAnswer(page), /^seed \d+ · 24 steps · [\d.]+ s\n+I drew a dog on a red background\.$/);
  assert.equal((await calls(page, "draw")).length, 0);
  assert.equal(await page.$eval("#composer", (form) => new FormData(/** @type {HTMLFormElement} */ (form)).get("mode")), "chat");

  await say(page, "now on a green background");
  await idle(page);
  const [, second] = await calls(page, "chat");
  assert.deepEqual(second.messages.map((/** @type {any} */ { role, content }) => [role, ...content.map((/** @type {any} */ part) => part.text ?? part.type)]), [
    ["user", "Draw a puppy on a red background"],
    ["assistant", "I drew a dog on a red background."],
    ["user", "now on a green background"],
  ]);

  // The same request is sent again in its conversation: alone, "now on a green background" says nothing about a dog.
  await page.$$eval(".drawn [aria-label='Draw another with a new seed']", (buttons) => /** @type {HTMLElement} */ (buttons.at(-1)).click());
  await page.waitForFunction(() => document.querySelectorAll(".drawn").length === 3);
  await idle(page);
  const [, , third] = await calls(page, "chat");
  assert.equal(third.messages.length, 5);
  assert.notEqual(third.options.seed, second.options.seed);
  assert.deepEqual(problems, []);
  await context.close();
});

test("in Draw mode a picture is drawn directly, and where chats may not draw, an example is", async () => {
  const { page, context } = await visit(DRAWN);
  await page.click("#mode-draw");
  await say(page, "a puppy");
  await idle(page);
  assert.equal((await calls(page, "draw")).length, 1);
  await page.click("#mode-chat");
  await say(page, "hello");
  await idle(page);
  // An exchange without text in its answer is not sent.
  assert.equal((await calls(page, "chat"))[0].messages.length, 1);
  await page.click("#panel-toggle");
  await page.click("#settings [name=drawInChat]");
  await example(page, "Draw a puppy");
  await idle(page);
  assert.equal((await calls(page, "draw")).length, 2);
  await context.close();
});

const SIZES = { mini: 14, smol: 120 };
// The build makes a smaller emu-mini pack than the one in the repository. That of emu-smol is the same; its manifest is there.
const MANIFESTS = { mini: "../../mini/pack/emu.json", smol: "../../../models/emu-smol/pack/emu.json" };
for (const [name, megabytes] of Object.entries(SIZES)) {
  const manifest = fileURLToPath(new URL(MANIFESTS[/** @type {keyof typeof MANIFESTS} */ (name)], import.meta.url));
  test(`the size that the page tells of emu-${name} is that of its pack`, { skip: !existsSync(manifest) && `web/${name}/pack is not built` }, () => {
    const { shards, files } = JSON.parse(readFileSync(manifest, "utf8"));
    const bytes = [...shards, ...files].reduce((sum, file) => sum + file.bytes, 0);
    assert.ok(Math.abs(bytes / 1e6 - megabytes) < megabytes / 10, `${bytes} bytes`);
  });
}

test("the page tells these sizes", () => {
  const html = readFileSync(new URL("../index.html", import.meta.url), "utf8");
  const told = [...html.matchAll(/emu-(mini|smol)[^<]*?about (\d+) MB|<strong>emu-(mini|smol)<\/strong>[^<]*about (\d+) MB/g)].map(([, a, b, c, d]) => `${a ?? c} ${b ?? d}`);
  assert.deepEqual([...new Set(told)].sort(), Object.entries(SIZES).map(([name, megabytes]) => `${name} ${megabytes}`));
  assert.equal(told.length, 4);
});
