// @ts-check
/* Keyboard, screen readers, small screens, color schemes. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { attach, calls, example, heard, idle, open, picture, say, start } from "./browser.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
/** @type {Awaited<ReturnType<typeof start>>} */
let world;
before(async () => (world = await start()));
after(() => world.close());

const phone = { width: 390, height: 844, isMobile: true, hasTouch: true };
/** @param {object} [how] */
const visit = (how) => open(world.browser, world.origin, how);

/** The violations that axe finds, as text. @param {import("puppeteer-core").Page} page @returns {Promise<string[]>} */
async function violations(page) {
  await page.setBypassCSP(true);
  // Evaluated rather than added as a script, which the page's policy forbids.
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(await (await import("node:fs/promises")).readFile(axe, "utf8"));
  await page.evaluate(() => Promise.all(document.getAnimations().filter((animation) => animation.effect?.getComputedTiming().endTime !== Infinity).map((animation) => animation.finished)));
  return page.evaluate(async () => {
    const { violations: found } = await /** @type {any} */ (globalThis).axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
    return found.map((/** @type {any} */ { id, nodes }) => `${id}: ${nodes.map((/** @type {any} */ node) => `${node.html} ${node.failureSummary}`).join(" | ")}`);
  });
}

test("axe finds nothing on the page as it opens, nor in a conversation that draws", async () => {
  const { page, context } = await visit({ query: "", script: { imageInChat: "first", answer: "I drew a dog on a red background." } });
  await page.waitForSelector(".example");
  assert.deepEqual(await violations(page), [], "first page");
  await example(page, "Draw a puppy");
  await idle(page);
  await page.click("#panel-toggle");
  assert.deepEqual(await violations(page), [], "conversation and panel");
  await context.close();
});

for (const dark of [false, true]) {
  for (const view of [{ width: 1280, height: 900 }, phone]) {
    test(`axe finds nothing: ${dark ? "dark" : "light"}, ${view.width} pixels`, async () => {
      const fail = { chat: { code: "device-lost", message: "The device was lost. Try again.", times: 1 } };
      const { page, context } = await visit({ dark, view, script: { fail, cached: [{ url: "https://example.org/p/", name: "p", bytes: 5e6, complete: false }] } });
      await page.waitForSelector(".example");
      assert.deepEqual(await violations(page), [], "first page");
      await example(page, "Continue the series");
      await idle(page);
      await example(page, "panda");
      await idle(page);
      await attach(page, picture("fox.png"), picture("whale.png"));
      assert.deepEqual(await violations(page), [], "conversation");
      await page.click("#panel-toggle");
      await page.type("#s-steps", "-1");
      await page.$eval("#bench-run", (button) => /** @type {HTMLElement} */ (button).click());
      await page.waitForSelector("#bench-result:not([hidden])");
      assert.deepEqual(await violations(page), [], "panel");
      await page.click("#panel-close");
      await page.$eval("#examples-open", (button) => /** @type {HTMLElement} */ (button).click());
      assert.deepEqual(await violations(page), [], "examples");
      await context.close();
    });
  }
}

test("every control has a name", async () => {
  const { page, context } = await visit();
  await example(page, "panda");
  await idle(page);
  await attach(page, picture("fox.png"));
  await page.click("#panel-toggle");
  const tree = await page.accessibility.snapshot();
  /** @type {string[]} */
  const nameless = [];
  let count = 0;
  /** @param {any} node */
  const walk = (node) => {
    if (/^(button|textbox|spinbutton|combobox|checkbox|radio|img|image|progressbar|link)$/.test(node.role)) {
      count += 1;
      if (!node.name) nameless.push(JSON.stringify(node));
    }
    for (const child of node.children ?? []) walk(child);
  };
  walk(tree);
  assert.ok(count > 40, `${count} controls`);
  assert.deepEqual(nameless, []);
  await context.close();
});

test("the keyboard is enough: attach by paste, choose, send, stop, read on", async () => {
  const { page, context } = await visit({ script: { pace: 40 } });
  const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.getAttribute("aria-label") || document.activeElement?.textContent || "");
  await page.keyboard.press("Tab");
  assert.match(await focused(), /Skip to the message box/);
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "prompt");
  await page.keyboard.type("a panda");
  // Tab order: message box, tools, modes.
  for (const expected of ["attach", "camera-open", "examples-open"]) {
    await page.keyboard.press("Tab");
    assert.equal(await focused(), expected);
  }
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.$eval("#composer", (form) => new FormData(/** @type {HTMLFormElement} */ (form)).get("mode")), "draw");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "send");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".preview");
  assert.equal(await focused(), "stop");
  await page.keyboard.press("Enter");
  await idle(page);
  assert.equal((await calls(page, "draw")).length, 1);
  assert.match(await heard(page), /Drawing\.Stopped\.$/);
  await context.close();
});

test("the panel gives the focus back, and on a phone holds it", async () => {
  const { page, context } = await visit({ view: phone });
  await page.click("#panel-toggle");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "panel-close");
  assert.equal(await page.$eval("#main", (main) => /** @type {HTMLElement} */ (main).inert), true);
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "panel-toggle");
  assert.equal(await page.$eval("#main", (main) => /** @type {HTMLElement} */ (main).inert), false);
  assert.equal(await page.$eval("#panel", (panel) => /** @type {HTMLElement} */ (panel).hidden), true);
  await context.close();
});

test("touch targets are 44 pixels, and nothing scrolls sideways at 320", async () => {
  const { page, context } = await visit({ view: { ...phone, width: 320 } });
  await example(page, "panda");
  await idle(page);
  await attach(page, picture("fox.png"), picture("whale.png"));
  const sideways = () => page.evaluate(() => [...document.querySelectorAll("body *")].filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest(".visually-hidden, pre")).map(({ outerHTML }) => outerHTML.slice(0, 80)));
  const small = () =>
    page.$$eval("button, select, input:not([type=file]), summary, label.check, .modes label", (controls) =>
      controls
        .filter((control) => /** @type {HTMLElement} */ (control).checkVisibility() && !control.closest("label.check > *"))
        .map((control) => ({ name: control.id || control.getAttribute("aria-label") || control.textContent, ...(({ width, height }) => ({ width, height }))((control.closest("label") ?? control).getBoundingClientRect()) }))
        .filter(({ width, height }) => width < 43.5 || height < 43.5),
    );
  assert.deepEqual([await sideways(), await small()], [[], []]);
  await page.$eval("#panel-toggle", (button) => /** @type {HTMLElement} */ (button).click());
  assert.deepEqual([await sideways(), await small()], [[], []]);
  await context.close();
});

test("reduced motion is respected", async () => {
  const { page, context } = await visit();
  assert.notEqual(await page.$eval("#send", (button) => getComputedStyle(button).transitionDuration), "0s");
  await page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }]);
  assert.equal(await page.$eval("#send", (button) => getComputedStyle(button).transitionDuration), "0s");
  await context.close();
});

test("reading further up is not disturbed", async () => {
  const { page, context } = await visit({ script: { answer: "word ".repeat(40), pace: 15 }, view: { width: 700, height: 500 } });
  for (const text of ["one", "two", "three"]) {
    await say(page, text);
    await idle(page);
  }
  const end = () => page.evaluate(() => document.documentElement.scrollHeight - scrollY - innerHeight);
  assert.ok((await end()) < 2);
  await say(page, "four");
  await page.waitForFunction(() => [...document.querySelectorAll(".said")].length === 4);
  await page.mouse.move(300, 200);
  await page.mouse.wheel({ deltaY: -600 });
  await page.waitForSelector("#jump:not([hidden])");
  const place = await page.evaluate(() => scrollY);
  await idle(page);
  assert.ok(Math.abs((await page.evaluate(() => scrollY)) - place) < 2);
  await page.click("#jump");
  assert.ok((await end()) < 2);
  await context.close();
});
