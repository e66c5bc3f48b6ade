// @ts-check
/* Conversations: text and pictures in, text and pictures out. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { attach, calls, example, heard, idle, lastAnswer, open, picture, say, start } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

/** @param {object} [script] @param {object} [how] */
const visit = (script, how) => open(world.browser, world.origin, { script, ...how });

test("an answer streams in, is announced, and can be copied", async () => {
  const { page, context, problems } = await visit({ answer: "It is a chick. It stands on the left.", pace: 40 });
  await context.overridePermissions(world.origin, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
  await say(page, "what is this?");
  await page.waitForFunction(() => document.querySelector(".said")?.textContent === "It is a chick.");
  assert.equal(await page.$eval(".answer", (answer) => answer.getAttribute("aria-busy")), "true");
  await idle(page);
  assert.match(await lastAnswer(page), /^It is a chick\. It stands on the left\.\n+9 tokens · /);
  assert.match(await heard(page), /It is a chick\.It stands on the left\./);
  assert.deepEqual((await calls(page, "chat"))[0].messages, [{ role: "user", content: [{ type: "text", text: "what is this?" }] }]);
  await page.click(".answer [aria-label='Copy answer']");
  await page.waitForSelector(".answer .done");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "It is a chick. It stands on the left.");
  assert.deepEqual(problems, []);
  await context.close();
});

test("Shift and Enter break the line, Enter sends", async () => {
  const { page, context } = await visit();
  await page.focus("#prompt");
  await page.keyboard.type("one");
  await page.keyboard.down("Shift");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Shift");
  await page.keyboard.type("two");
  assert.equal(await page.$eval("#prompt", (box) => /** @type {HTMLTextAreaElement} */ (box).value), "one\ntwo");
  assert.equal((await calls(page, "chat")).length, 0);
  await page.keyboard.press("Enter");
  await idle(page);
  assert.equal((await calls(page, "chat"))[0].messages[0].content[0].text, "one\ntwo");
  await context.close();
});

test("a picture alone is described, the next question is about it", async () => {
  const { page, context } = await visit();
  await attach(page, picture("fox.png"));
  await page.click("#send");
  await idle(page);
  assert.match(await lastAnswer(page), /a fox on a blue background/);
  const [caption] = await calls(page, "caption");
  // The file's own bytes, so that the model's decoder reads them.
  assert.deepEqual(caption.image, { blob: "image/png", size: 2684 });

  assert.ok(await page.$("#tray .about img"));
  await say(page, "what colour is it?");
  await idle(page);
  const content = (await calls(page, "chat"))[0].messages[0].content;
  assert.deepEqual(content.map((/** @type {any} */ part) => part.type), ["image", "text"]);
  assert.ok(await page.$(".asked .about img"));

  await page.click("#tray [aria-label='Ask without this picture']");
  await say(page, "hello");
  await idle(page);
  assert.equal((await calls(page, "chat"))[1].messages[0].content.length, 1);
  await context.close();
});

test("the whole conversation is sent where that is set", async () => {
  const { page, context } = await visit();
  await page.click("#panel-toggle");
  await page.select("#s-context", "conversation");
  await say(page, "first");
  await idle(page);
  await say(page, "second");
  await idle(page);
  const [, second] = await calls(page, "chat");
  assert.deepEqual(second.messages.map((/** @type {any} */ message) => message.role), ["user", "assistant", "user"]);
  await context.close();
});

test("a few-shot example keeps its order and asks for words", async () => {
  const { page, context } = await visit({ answer: "a calendar, green", imageInChat: true });
  await example(page, "Continue the series");
  await idle(page);
  const [{ messages, options }] = await calls(page, "chat");
  assert.deepEqual(messages[0].content.map((/** @type {any} */ part) => part.text ?? part.type), ["image", " a box, gray ", "image", " a trophy, purple ", "image", " a chick, yellow ", "image"]);
  assert.equal(options.images, false);
  assert.equal(await page.$$eval(".series figcaption", (captions) => captions.map(({ textContent }) => textContent).join("|")), "a box, gray|a trophy, purple|a chick, yellow|…");
  await context.close();
});

test("an answer may hold a picture", async () => {
  const { page, context } = await visit({ imageInChat: true, answer: "here it is" });
  await say(page, "show me a cat");
  await idle(page);
  assert.equal(await page.$$eval(".answer .said, .answer .drawn img", (found) => found.map(({ tagName }) => tagName).join()), "P,IMG");
  await context.close();
});

test("Escape stops, what was said stays, and the next call works", async () => {
  const { page, context } = await visit({ answer: "one two three four five six seven eight nine ten", pace: 60 });
  await say(page, "count");
  await page.waitForFunction(() => document.querySelector(".said")?.textContent?.includes("three"));
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector(".answer")?.textContent?.includes("Stopped."));
  const said = await page.$eval(".said", ({ textContent }) => textContent);
  assert.ok(said && said.startsWith("one two three") && !said.includes("ten"), String(said));
  await idle(page);
  await page.click(".answer .footer .button");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "stop");
  await idle(page);
  assert.match(await lastAnswer(page), /nine ten/);
  await context.close();
});

test("stopping while the model loads stops the loading", async () => {
  const { page, context } = await visit({ pace: 100 });
  await say(page, "hello");
  await page.waitForFunction(() => document.querySelector(".turn .status-text")?.textContent === "Downloading the model");
  await page.click("#stop");
  await page.waitForFunction(() => document.querySelector(".answer")?.textContent?.includes("Stopped."));
  assert.equal((await calls(page, "chat")).length, 0);
  await page.waitForFunction(() => document.getElementById("model-chip")?.dataset["state"] === "idle");
  await context.close();
});

test("an error says what is wrong and what to do, and trying again uses the same seed", async () => {
  const fail = { chat: { code: "device-lost", message: "The graphics device was lost. Try again; it is loaded anew.", times: 1 } };
  const { page, context, problems } = await visit({ fail });
  await say(page, "what?");
  await page.waitForSelector(".error[role=alert]");
  assert.deepEqual(await page.$$eval(".error p, .error code", (lines) => lines.map(({ textContent }) => textContent)), ["The graphics device was lost.", "Try again; it is loaded anew.", "device-lost"]);
  await idle(page);
  await page.click(".error button");
  await idle(page);
  assert.match(await lastAnswer(page), /^a chick/);
  assert.equal(await page.$(".error"), null);
  const seeds = (await calls(page, "chat")).map(({ options }) => options.seed);
  assert.equal(seeds.length, 2);
  assert.equal(seeds[0], seeds[1]);
  assert.deepEqual(problems, []);
  await context.close();
});

test("a warning of the package stands in the answer", async () => {
  const { page, context } = await visit({ warning: "The device was lost; the call started again." });
  await say(page, "what?");
  await idle(page);
  assert.match(await lastAnswer(page), /^The device was lost; the call started again\.\n+a chick/);
  assert.match(await heard(page), /started again/);
  await context.close();
});

test("an answer without a word is told as such", async () => {
  const { page, context } = await visit({ answer: " " });
  await say(page, "draw a cat");
  await idle(page);
  assert.match(await lastAnswer(page), /without a word/);
  await context.close();
});

test("settings reach the calls, and wrong ones are refused", async () => {
  const { page, context } = await visit();
  await page.click("#panel-toggle");
  for (const [name, value] of Object.entries({ temperature: "0.7", topP: "0.9", beams: "3", maxNewTokens: "12", seed: "7", topK: "0" })) await page.type(`#s-${name}`, value);
  assert.equal(await page.$eval("#s-topK", (field) => field.getAttribute("aria-invalid")), "true");
  assert.match(await page.$eval("#s-topK-error", ({ textContent }) => textContent ?? ""), /whole number from 1 to 1000/);
  await say(page, "what?");
  await idle(page);
  const { images, draw, retry, ...options } = (await calls(page, "chat"))[0].options;
  assert.deepEqual(options, { temperature: 0.7, topP: 0.9, beams: 3, maxNewTokens: 12, seed: 7 });
  assert.deepEqual([images, retry], [undefined, true]);
  await context.close();
});

test("a new conversation forgets the old one", async () => {
  const { page, context } = await visit();
  await attach(page, picture("fox.png"));
  await say(page, "what?");
  await idle(page);
  await page.click("#new");
  assert.equal(await page.$(".turn"), null);
  assert.ok(await page.$("#welcome:not([hidden])"));
  assert.equal((await calls(page, "reset")).length, 1);
  await say(page, "hello");
  await idle(page);
  assert.equal((await calls(page, "chat"))[1].messages[0].content.length, 1);
  await context.close();
});
