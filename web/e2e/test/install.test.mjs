/** A user's project: the packed tarballs, the README's snippet, the example. Also the size budgets. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { copyFile, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { bytesOf, closure } from "../../package/test/sizes.mjs";
import { serve } from "../../server/serve.mjs";
import * as native from "../lib/native.mjs";
import { assertAlike, fromPage } from "../lib/pictures.mjs";
import { importMap } from "../lib/project.mjs";
import { across, noMini, PACK, picture, project } from "../lib/stage.mjs";

const { folder, tarballs } = await project();
const installed = join(folder, "node_modules");
const mini = join(installed, "emu-webgpu-mini/pack");
const web = fileURLToPath(new URL("../../", import.meta.url));
const examples = join(web, "package/examples/");

const KB = 1000;
const MB = 1000 * KB;

/** Whether the module was linked as for a release: smaller, which takes minutes (`cargo xtask wasm`). */
const isPublished = (module) => readFileSync(join(web, "package/wasm", module, ".made-from"), "utf8").trimEnd().endsWith("published");

test("the packages keep within their budgets", (t) => {
  const { bytes, files } = tarballs["emu-webgpu"];
  const sum = (pattern) => files.filter(({ path }) => pattern.test(path)).reduce((total, { size }) => total + size, 0);
  const dist = join(installed, "emu-webgpu/dist");
  const sizes = [
    ["the scripts of a page", bytesOf(dist, closure(dist, ["index.js", "worker-cpu.js", "worker-webgpu.js"])), 60 * KB],
    // A module linked for a local page is a third larger: as long as it keeps within its budget, the published one does.
    ["the tarball", bytes, (isPublished("webgpu") ? 7 : 9) * MB],
    ["the module for WebGPU", sum(/^wasm\/webgpu\/.*\.wasm$/), (isPublished("webgpu") ? 12 : 15.5) * MB],
    ["the module for the CPU", sum(/^wasm\/cpu\/.*\.wasm$/), (isPublished("cpu") ? 12 : 7) * MB],
  ];
  for (const [what, size, budget] of sizes) {
    t.diagnostic(`${what}: ${size} of ${budget} bytes`);
    assert.ok(size > 0, `${what} is missing`);
    assert.ok(size <= budget, `${what} has ${size} bytes, the budget is ${budget}`);
  }
});

test("the pack of emu-webgpu-mini keeps within its budget, captioning within half of it", { skip: noMini }, (t) => {
  const { files } = tarballs["emu-webgpu-mini"];
  const sum = (pattern) => files.filter(({ path }) => pattern.test(path)).reduce((total, { size }) => total + size, 0);
  const [all, captioning] = [sum(/^pack\//), sum(/^pack\/(emu\.json|tokenizer\.json|vision-|lm-)/)];
  t.diagnostic(`${all} bytes, ${captioning} for captioning`);
  assert.ok(captioning > 0 && all <= 22 * MB, `${all} bytes`);
  assert.ok(captioning <= 11 * MB && captioning <= all / 2, `${captioning} bytes for captioning`);
});

test("the tarballs hold nothing that was left over by their building", () => {
  for (const { files } of Object.values(tarballs)) {
    assert.deepEqual(files.map(({ path }) => path).filter((path) => /(^|\/)\.|\.(map|tgz|part)$|node_modules|\.test\./.test(path)), []);
  }
});

across("the README's snippet captions, answers and draws", { devices: ["cpu"] }, async (stage, t) => {
  if (noMini) return t.skip(noMini);
  const readme = await readFile(join(installed, "emu-webgpu/README.md"), "utf8");
  const [, snippet] = /^```js\n([^]*?)^```$/m.exec(readme);
  // The snippet leaves open what to do with its picture: here it is checked.
  const html = `<!doctype html>\n<title>A page</title>\n<link rel="icon" href="data:,">\n<script type="importmap">${await importMap(folder)}</script>
<script type="module">\n${snippet}\nglobalThis.drawn = image;\n</script>\n<body></body>\n`;
  await writeFile(join(folder, "index.html"), html);
  await copyFile(picture("panda-target.png"), join(folder, "panda.png"));

  const page = await stage.open();
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  await page.goto(stage.site.url);
  await page.waitForFunction(() => globalThis.drawn);
  const shown = await page.evaluate(() => {
    const { width, height, data } = globalThis.drawn;
    return { text: document.body.innerText.trim(), picture: { width, height, base64: btoa(String.fromCharCode(...data)) } };
  });

  const [caption] = await native.captions(mini, [picture("panda-target.png")]);
  const { text } = await native.answer(mini, [picture("panda-target.png")], "what is on the left?");
  const drawing = await native.drawing(mini, "please make a drawing of a panda on a gray background", { seed: 7, steps: 20 });
  assert.ok(said.includes(caption), `no "${caption}" in ${said.filter((line) => !line.startsWith("JSHandle"))}`);
  assert.equal(shown.text, text);
  t.diagnostic(`greatest difference ${assertAlike(fromPage(shown.picture), drawing, 2)}/255`);
});

across("a package from another origin works in the page", { devices: ["cpu"] }, async (stage, t) => {
  const cdn = await serve([{ prefix: "/", folder }]);
  t.after(() => cdn.close());
  const page = await stage.open();
  const map = (await importMap(folder)).replaceAll('"/node_modules/', `"${cdn.url}node_modules/`);
  await writeFile(join(folder, "elsewhere.html"), (await readFile(join(folder, "lab.html"), "utf8")).replace(await importMap(folder), map));
  await page.goto(`${stage.site.url}elsewhere.html`);
  await page.waitForFunction(() => globalThis.lab !== undefined);
  await stage.load({}, page);
  const [caption] = await native.captions(PACK, [picture("fox.png")]);
  assert.equal(await page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png"))), caption);
  assert.ok(!stage.site.log.some(({ path }) => path.endsWith(".wasm")));
});

across("the example for a plain page captions a file and draws", { devices: ["cpu"] }, async (stage, t) => {
  if (noMini) return t.skip(noMini);
  const place = await mkdtemp(join(folder, "plain-"));
  for (const name of ["index.html", "main.js"]) {
    const text = await readFile(join(examples, "plain", name), "utf8");
    // The packages are installed in the parent folder.
    await writeFile(join(place, name), text.replaceAll("./node_modules/", "../node_modules/"));
  }
  const page = await stage.open();
  await page.goto(`${stage.site.url}${place.slice(folder.length + 1)}/`);
  const status = (wanted) => page.waitForFunction((wanted) => document.getElementById("status").textContent.startsWith(wanted), {}, wanted);
  await status("Ready");
  const input = await page.$("#file");
  await input.uploadFile(picture("fox.png"));
  await status("Done.");
  const [caption] = await native.captions(mini, [picture("fox.png")]);
  assert.equal(await page.$eval("#caption", ({ textContent }) => textContent), caption);
  await page.click("#draw");
  await status("Drawing");
  await status("Done.");
  const colours = await page.$eval("#canvas", (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
  });
  assert.ok(colours > 50, `the picture has ${colours} colours`);
});
