/** The page as it is served: it describes a picture and draws one, smoothly, without requests to other hosts. */

import assert from "node:assert/strict";
import { cp, mkdir, readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { serveWithFaults } from "../../server/faults.mjs";
import { absent, BROWSERS, launch } from "../lib/browsers.mjs";
import * as native from "../lib/native.mjs";
import { assertAlike, fromPage } from "../lib/pictures.mjs";
import { temporaryFolder } from "../lib/project.mjs";
import { noSmol, PACK, picture, project, SMOL } from "../lib/stage.mjs";
import { CATEGORIES, mainThreadTasks, within } from "../lib/trace.mjs";

const web = fileURLToPath(new URL("../..", import.meta.url));
const unbuilt = existsSync(join(web, "demo/dist/main.js")) && existsSync(join(web, "demo/examples")) ? false : "web/demo is not built (npm run build)";
const REQUEST = "create a picture of a banana on a red background";
const [SEED, STEPS] = [7, 6];

/** Assembles the folder that `cargo xtask demo` serves, with the package as packed. */
async function assemble() {
  const site = await temporaryFolder("site");
  const { folder } = await project();
  await mkdir(join(site, "emu-webgpu-mini"));
  const parts = [
    [join(web, "demo/index.html"), "index.html"],
    [join(web, "demo/style.css"), "style.css"],
    [join(web, "demo/_headers"), "_headers"],
    [join(web, "demo/dist"), "dist"],
    [join(web, "demo/examples"), "examples"],
    [join(folder, "node_modules/emu-webgpu/dist"), "emu-webgpu/dist"],
    [join(folder, "node_modules/emu-webgpu/wasm"), "emu-webgpu/wasm"],
    [join(web, "mini/index.js"), "emu-webgpu-mini/index.js"],
    [join(web, "mini/package.json"), "emu-webgpu-mini/package.json"],
    [PACK, "emu-webgpu-mini/pack"],
  ];
  if (!noSmol) {
    await mkdir(join(site, "emu-webgpu-smol"));
    for (const file of ["index.js", "package.json"]) parts.push([join(web, "smol", file), `emu-webgpu-smol/${file}`]);
    parts.push([SMOL, "emu-webgpu-smol/pack"]);
  }
  for (const [from, to] of parts) await cp(from, join(site, to), { recursive: true });
  return site;
}

const idle = (page) => page.waitForFunction(() => document.getElementById("stop")?.hidden && !document.querySelector("[aria-busy]"));

/** Clicks the example whose card contains this text. */
async function example(page, words) {
  await page.waitForSelector("#examples-all .example");
  await page.$$eval("#examples-all .example", (cards, words) => cards.find(({ textContent }) => textContent.includes(words)).click(), words);
  await page.waitForSelector(".turn");
  await idle(page);
}

/** A page of the assembled site for a new visitor, with its errors and its requests to other hosts. */
async function visit(t, name, query) {
  const server = await serveWithFaults([{ prefix: "/", folder: await assemble() }]);
  t.after(() => server.close());
  const browser = await launch(name);
  t.after(() => browser.close());
  const page = await browser.newPage();
  const [problems, strangers] = [[], []];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && problems.push(message.text()));
  page.on("request", (request) => /^https?:/.test(request.url()) && !request.url().startsWith(server.url) && strangers.push(request.url()));
  await page.setViewport({ width: 1100, height: 900 });
  await page.goto(`${server.url}${query}`);
  await page.waitForFunction(() => document.getElementById("model-chip")?.dataset.state === "idle");
  // Opening the page fetches nothing large.
  assert.ok(!server.log.some(({ path }) => /\.(wasm|safetensors)$/.test(path)));
  return { server, page, problems, strangers };
}

for (const name of BROWSERS) {
  test(`the page describes and draws what the native program does (${name}, cpu)`, { skip: absent(name) || unbuilt, timeout: 600_000 }, async (t) => {
    const { server, page, problems, strangers } = await visit(t, name, "?model=mini&device=cpu");
    const traced = name === "chromium";
    if (traced) {
      await page.tracing.start({ categories: CATEGORIES });
      await page.evaluate(() => void performance.mark("emu-main-thread"));
    }

    await example(page, "What is in this picture?");
    const [{ images }] = JSON.parse(await readFile(join(web, "demo/examples/mini/demo.json"), "utf8")).steps.find(({ kind }) => kind === "caption").items;
    const [caption] = await native.captions(PACK, images.map(picture));
    assert.equal(await page.$eval(".answer .said", ({ textContent }) => textContent.trim()), caption);
    assert.ok(!server.log.some(({ path }) => path.includes("decoder-")), "the decoder was fetched for a caption");

    for (const [field, value] of [["seed", SEED], ["steps", STEPS]]) {
      await page.$eval(`#s-${field}`, (input, value) => {
        input.value = value;
        input.dispatchEvent(new Event("input", { bubbles: true }));
        input.dispatchEvent(new Event("change", { bubbles: true }));
      }, String(value));
    }
    await example(page, REQUEST);
    const drawn = await page.$$eval(".answer .drawn img", async (found) => {
      const bitmap = await createImageBitmap(found.at(-1));
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
      return { width: bitmap.width, height: bitmap.height, base64: btoa(String.fromCharCode(...data)) };
    });
    const expected = await native.drawing(PACK, REQUEST, { seed: SEED, steps: STEPS });
    t.diagnostic(`greatest difference ${assertAlike(fromPage(drawn), expected, 2)}/255`);

    if (traced) {
      const trace = JSON.parse(Buffer.from(await page.tracing.stop()).toString());
      const [longest] = mainThreadTasks(trace, "emu-main-thread").sort((a, b) => b.cpu - a.cpu);
      t.diagnostic(`longest task: ${longest.cpu.toFixed(1)} ms of CPU time`);
      assert.ok(longest.cpu <= 50, `a task took ${longest.cpu.toFixed(1)} ms: ${within(trace, longest).join(", ")}`);
    }
    assert.deepEqual(problems, []);
    assert.deepEqual(strangers, []);

    // The worker may fetch only what the page may: both policies apply there. Only Chromium lets a test into the worker.
    if (name !== "chromium") return;
    const [worker] = page.workers();
    assert.ok(worker, "the worker is not seen");
    const elsewhere = await serveWithFaults([{ prefix: "/", folder: PACK }]);
    t.after(() => elsewhere.close());
    const reach = (address) => worker.evaluate((address) => fetch(address).then(({ ok }) => ok, () => false), address);
    assert.equal(await reach(`${server.url}emu-webgpu-mini/pack/emu.json`), true);
    assert.equal(await reach(`${elsewhere.url}emu.json`), false);
    assert.equal(elsewhere.log.length, 0);
  });

  test(`the page opens with emu-smol, which answers as the native program does (${name}, cpu)`, { skip: absent(name) || unbuilt || noSmol, timeout: 900_000 }, async (t) => {
    const { server, page, problems, strangers } = await visit(t, name, "?device=cpu");
    const answered = () => page.$$eval(".answer", (answers) => [...answers.at(-1).querySelectorAll("img, .said")].map((one) => one.textContent.trim() || one.tagName).join(" "));
    await example(page, "What is in the picture?");
    // WASM rounds sums differently, and a long answer diverges at some token: only its beginning is compared.
    const begins = (text) => text.trim().split(/\s+/).slice(0, 8).join(" ");
    const expected = await native.answer(SMOL, [picture("fox.png")], "What is in the picture?");
    assert.equal(begins(await answered()), begins(expected.text));

    const say = async (text) => {
      await page.type("#prompt", text);
      await page.keyboard.press("Enter");
      await idle(page);
    };
    await say("Who are you?");
    assert.match(await answered(), /\w/);
    if (await page.$("#mode-draw input:enabled")) {
      for (const request of ["Draw a puppy on a red background", "now on a green background"]) {
        await say(request);
        assert.match(await answered(), /^IMG I drew a/);
      }
    }
    assert.ok(!server.log.some(({ path }) => path.includes("emu-webgpu-mini")), "the other model was asked for");
    assert.deepEqual(problems, []);
    assert.deepEqual(strangers, []);
  });
}
