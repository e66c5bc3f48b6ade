/**
 * Measures the first calls after loading, in each browser with a fresh profile: `node tools/first.mjs [PACKAGE..]`. Arguments are
 * folders of built packages to compare, in turns (default: this one's). Prints a line of JSON per visit: seconds of loading, of
 * the first and second caption, and of the first and second drawing (2 steps), with the pipelines that each created and the
 * progress that it reported of them.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { serve } from "../../server/serve.mjs";
import { absent, BROWSERS, launch } from "../lib/browsers.mjs";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const pack = [join(root, "web/mini/pack"), join(root, "models/emu-mini")].find((folder) => existsSync(join(folder, "emu.json")));
const packages = process.argv.length > 2 ? process.argv.slice(2) : [join(root, "web/package")];
const ROUNDS = Number(process.env.ROUNDS || 2);

/** Runs in the page. */
async function measure() {
  const { Emu } = await import("/package/dist/index.js");
  const seconds = async (call) => {
    const start = performance.now();
    const compile = [];
    const at = () => Math.round(performance.now() - start) / 1000;
    const made = emu && (await emu.costs()).pipelines;
    const value = await call((event) => event.phase === "compile" && compile.push([event.done, event.total, at()]));
    const time = at();
    return { time, pipelines: (await emu.costs()).pipelines - made, told: compile.length, first: compile[0], last: compile.at(-1), value };
  };
  let emu = null;
  const fox = new Uint8Array(await (await fetch("/picture/fox.png")).arrayBuffer());
  const caption = (onProgress) => emu.caption(fox, { onProgress });
  const draw = (onProgress) => emu.generateImage("a fox on a blue background", { steps: 2, seed: 1, onProgress }).then(({ image }) => image.data.reduce((sum, value, at) => (sum * 31 + value * (at % 7)) % 1000003, 0));
  const load = await seconds(async (onProgress) => void (emu = await Emu.load("/pack/", { device: "webgpu", onProgress, components: ["vision", "lm", "decoder"] })));
  const made = { load, caption: await seconds(caption), again: await seconds(caption), draw: await seconds(draw), redraw: await seconds(draw) };
  await emu.dispose();
  return made;
}

for (let round = 0; round < ROUNDS; round++) {
  for (const name of BROWSERS.filter((name) => !absent(name) && (!process.env.BROWSER || process.env.BROWSER === name))) {
    for (const folder of packages) {
      const site = await serve([
        { prefix: "/package/", folder },
        { prefix: "/pack/", folder: pack },
        { prefix: "/picture/", folder: join(root, "models/emu-mini/demo") },
      ]);
      const browser = await launch(name);
      try {
        const page = await browser.newPage();
        await page.goto(`${site.url}picture/fox.png`);
        console.log(JSON.stringify({ browser: name, package: folder, ...(await page.evaluate(measure)) }));
      } finally {
        await browser.close();
        await site.close();
      }
    }
  }
}
