/**
 * The package's examples, each built with its own tools from the packed tarballs, and opened in Chromium. They install frameworks
 * from the registry and take minutes, so they run with `EMU_EXAMPLES=1`, or with `EMU_EXAMPLES=next,rollup` only these.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { serve } from "../../server/serve.mjs";
import { absent, launch } from "../lib/browsers.mjs";
import { noMini, picture, project } from "../lib/stage.mjs";
import { temporaryFolder } from "../lib/project.mjs";

const run = promisify(execFile);
const examples = fileURLToPath(new URL("../../package/examples/", import.meta.url));
const wanted = process.env.EMU_EXAMPLES ?? "";
const PATIENCE = 15 * 60_000;

/** Folder of the built site by example. */
const SITES = { vite: "dist", webpack: "dist", esbuild: "public", rollup: "public", next: "out", sveltekit: "build" };
const skipped = (name) =>
  absent("chromium") || noMini || (wanted === "1" || wanted.split(",").includes(name) ? false : "EMU_EXAMPLES does not name it");

let browser;
after(() => browser?.close());

/** Copies an example, installs its packages and the tarballs of ours, and builds it. */
async function built(name) {
  const home = await temporaryFolder(name);
  await cp(join(examples, name), home, { recursive: true, filter: (path) => !/node_modules|\/(dist|out|build|public\/(main|emu-))/.test(path.slice(examples.length)) });
  const { tarballs } = await project();
  const npm = (...args) => run("npm", args, { cwd: home, maxBuffer: 2 ** 24, env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1" } });
  const manifest = JSON.parse(await readFile(join(home, "package.json"), "utf8"));
  for (const [dependency, { path }] of Object.entries(tarballs)) manifest.dependencies[dependency] = `file:${path}`;
  await writeFile(join(home, "package.json"), JSON.stringify(manifest));
  await npm("install", "--no-audit", "--no-fund");
  await npm("run", "build").catch(({ stdout, stderr }) => assert.fail(`${stdout}\n${stderr}`));
  return home;
}

/** Gives the page a picture, as a visitor would, and returns the answer. */
async function asked(page, problems) {
  const input = await page.waitForSelector("input[type=file]:not([disabled])", { timeout: PATIENCE }).catch(async (error) => {
    throw new Error(`${await page.$eval("body", (body) => body.innerText)} ${problems.join(" | ")}`, { cause: error });
  });
  await input.uploadFile(picture("chick-telescope.png"));
  await page.waitForFunction(() => /chick/.test(document.querySelector("#output").textContent));
  return page.$eval("#output", ({ textContent }) => textContent);
}

/** Collects what goes wrong in a page. */
function problemsOf(page) {
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => problems.push(`${request.url()} failed`));
  page.on("response", (response) => {
    if (response.status() >= 400 && !response.url().endsWith("/favicon.ico")) problems.push(`${response.status()} for ${response.url()}`);
  });
  return problems;
}

for (const [name, site] of Object.entries(SITES)) {
  test(`the example for ${name} answers`, { skip: skipped(name), timeout: PATIENCE }, async (t) => {
    const home = await built(name);
    const server = await serve([{ prefix: "/", folder: join(home, site) }]);
    t.after(() => server.close());
    browser ??= await launch("chromium", { webgpu: false });
    const page = await browser.newPage();
    t.after(() => page.close());
    const problems = problemsOf(page);
    await page.goto(server.url);
    assert.match(await asked(page, problems), /^a chick/);
    assert.deepEqual(problems, []);
  });
}

test("the example of an extension answers, and its service worker fetches the pack", { skip: skipped("extension"), timeout: PATIENCE }, async (t) => {
  const home = await built("extension");
  const browser = await launch("chromium", { webgpu: false, extensions: [join(home, "dist")] });
  t.after(() => browser.close());
  const background = await browser.waitForTarget((target) => target.type() === "service_worker", { timeout: PATIENCE });
  const page = await browser.newPage();
  const problems = problemsOf(page);
  await page.goto(new URL("index.html", background.url()).href);
  assert.match(await asked(page, problems), /^a chick/);
  assert.deepEqual(problems, []);
});
