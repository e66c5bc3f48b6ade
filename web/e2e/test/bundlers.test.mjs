/** The packages with bundlers: webpack without configuration, esbuild with the README's steps, and the errors without those
 * steps. */

import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { build } from "esbuild";
import webpack from "webpack";

import { serveWithFaults } from "../../server/faults.mjs";
import * as native from "../lib/native.mjs";
import { across, noMini, picture, project } from "../lib/stage.mjs";

const { folder } = await project();
const installed = join(folder, "node_modules");
const mini = join(installed, "emu-webgpu-mini/pack");

/** A project beside the installed packages, with a page that runs this script. */
async function application(script) {
  const home = await mkdtemp(join(folder, "app-"));
  await mkdir(join(home, "src"));
  await writeFile(join(home, "src/index.js"), script);
  return home;
}

const page = (type) => `<!doctype html>\n<title>A page</title>\n<link rel="icon" href="data:,">\n<script ${type} src="main.js"></script>\n`;

/** A script that captions a picture, or reports the error. `options` are JavaScript source. */
const captioning = (options, pack = "pack") => `
import { Emu } from "emu-webgpu";
${pack === "pack" ? 'import { pack } from "emu-webgpu-mini";' : ""}
globalThis.done = (async () => {
  try {
    const emu = await Emu.load(${pack}, { device: new URLSearchParams(location.search).get("device"), ${options} });
    const caption = await emu.caption(new URL("panda.png", location.href));
    await emu.dispose();
    return { caption };
  } catch ({ name, code, message }) {
    return { name, code, message };
  }
})();
`;

/** Opens the built site in a new page, and returns its result. */
async function visit(stage, t, site, prepare = () => {}) {
  await cp(picture("panda-target.png"), join(site, "panda.png"));
  const server = await serveWithFaults([{ prefix: "/", folder: site }]);
  t.after(() => server.close());
  prepare(server);
  const tab = await stage.browser.newPage();
  t.after(() => tab.close());
  await tab.goto(`${server.url}?device=${stage.device}`);
  await tab.waitForFunction(() => globalThis.done);
  return { result: await tab.evaluate(() => globalThis.done), log: server.log };
}

/** Runs `webpack --mode MODE` in that folder, without a configuration. */
async function bundle(home, mode) {
  const stats = await new Promise((resolve, reject) => webpack({ mode, context: home, output: { path: join(home, "dist") } }, (error, stats) => (error ? reject(error) : resolve(stats))));
  assert.ok(!stats.hasErrors(), stats.toString("errors-only"));
  return join(home, "dist");
}

for (const mode of ["production", "development"]) {
  across(`webpack needs no configuration (${mode})`, { browsers: ["chromium"], devices: mode === "production" ? ["cpu", "webgpu"] : ["cpu"] }, async (stage, t) => {
    if (noMini) return t.skip(noMini);
    const site = await bundle(await application(captioning("")), mode);
    await writeFile(join(site, "index.html"), page("defer"));
    const { result, log } = await visit(stage, t, site);
    const [caption] = await native.captions(mini, [picture("panda-target.png")]);
    assert.deepEqual(result, { caption });
    assert.equal(log.filter(({ path }) => path.endsWith(".wasm")).length, 1, "one module is downloaded");
  });
}

/** Runs `esbuild src/index.js --bundle --format=FORMAT --outfile=site/main.js`. */
async function esbuilt(script, format = "esm") {
  const home = await application(script);
  const site = join(home, "site");
  await build({ entryPoints: [join(home, "src/index.js")], bundle: true, format, outfile: join(site, "main.js"), logLevel: "error" });
  await writeFile(join(site, "index.html"), page(format === "esm" ? 'type="module"' : "defer"));
  return site;
}

/** Performs the README's copy steps. */
async function copied(site) {
  for (const part of ["dist", "wasm"]) await cp(join(installed, "emu-webgpu", part), join(site, "emu-webgpu", part), { recursive: true });
  await cp(mini, join(site, "emu-mini"), { recursive: true });
  return site;
}

const OPTIONS = 'worker: "emu-webgpu/dist/", wasm: "emu-webgpu/wasm/"';

for (const format of ["esm", "iife"]) {
  across(`esbuild works with the documented steps (${format})`, { browsers: ["chromium"], devices: ["cpu"] }, async (stage, t) => {
    if (noMini) return t.skip(noMini);
    const site = await copied(await esbuilt(captioning(OPTIONS, '"emu-mini/"'), format));
    const { result } = await visit(stage, t, site);
    const [caption] = await native.captions(mini, [picture("panda-target.png")]);
    assert.deepEqual(result, { caption });
  });
}

across("esbuild without the steps: each thing that was left out is named, with what to do", { browsers: ["chromium"] }, async (stage, t) => {
  if (noMini) return t.skip(noMini);
  const says = async (what, site, code, message, prepare) => {
    await t.test(what, async (t) => {
      const { result } = await visit(stage, t, site, prepare);
      assert.deepEqual([result.name, result.code], ["EmuError", code], JSON.stringify(result));
      assert.match(result.message, message);
    });
  };
  await says("the pack", await esbuilt(captioning("")), "not-found", /npm:emu-webgpu-mini .* there is nothing at http\S+\/pack\/emu\.json\. Bundlers .* copy its folder/);
  await says("the pack, not a module", await esbuilt(captioning(""), "iife"), "not-found", /npm:emu-webgpu-mini has no addresses/);
  const withPack = async (options, format) => {
    const site = await esbuilt(captioning(options, '"emu-mini/"'), format);
    await cp(mini, join(site, "emu-mini"), { recursive: true });
    return site;
  };
  const worker = /worker could not be started: .*worker-cpu\.js.* Bundlers .* copy the package's dist and wasm.* options `worker` and `wasm`/;
  await says("the worker", await withPack(""), "worker", worker);
  await says("the worker, not a module", await withPack("", "iife"), "worker", /no ES module.* Bundlers/);
  await says("the worker, from a server that answers everything with its page", await withPack(""), "worker", /worker-cpu\.js gives a web page\. Bundlers/, ({ faults }) =>
    faults.push({ match: "worker-cpu.js", page: true }),
  );
  const half = await copied(await withPack(OPTIONS));
  await rm(join(half, "emu-webgpu/wasm"), { recursive: true });
  await says("the module's script", half, "worker", /wasm\/cpu\/emu_web\.js/);
  const whole = await copied(await withPack(OPTIONS));
  await says("the module", whole, "worker", /emu_web_bg\.wasm gives a web page\. Check .* option `wasm`/, ({ faults }) =>
    faults.push({ match: "emu_web_bg.wasm", page: true }),
  );
});
