/**
 * Compiles every kernel source that the native tests used with the browsers' compilers. `EMU_KERNEL_TEXTS` names the folder of
 * the sources, which `cargo xtask test --tier gpu` writes.
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { across } from "../lib/stage.mjs";

const FOLDER = process.env.EMU_KERNEL_TEXTS ?? "";
const SHADERS = fileURLToPath(new URL("../../../shaders", import.meta.url));
/** Subfolder of the shared sections of sources. */
const PARTS = "shared";

/** Kernel sources by file name: `kernel~sections~hash.wgsl`. */
async function texts() {
  const files = existsSync(FOLDER) ? await readdir(FOLDER) : [];
  return Promise.all(
    files.sort().map(async (file) => {
      const [kernel, sections] = file.split("~");
      return { file, kernel, variant: `${kernel}~${sections}`, code: await readFile(join(FOLDER, file), "utf8") };
    }),
  );
}

/** Runs in a page: compiler errors of sources. Those in `whole` become pipelines, with the limits that all adapters have. */
async function refusals(page, texts, whole) {
  return page.evaluate(
    async (texts, whole) => {
      const adapter = await navigator.gpu.requestAdapter();
      const subgroups = adapter.features.has("subgroups");
      const device = await adapter.requestDevice({ requiredFeatures: subgroups ? ["subgroups"] : [] });
      const said = [];
      const check = async ({ file, code }) => {
        device.pushErrorScope("validation");
        const module = device.createShaderModule({ code });
        const scope = device.popErrorScope();
        const { messages } = await module.getCompilationInfo();
        const errors = messages.filter(({ type }) => type === "error").map(({ message, lineNum }) => `line ${lineNum}: ${message}`);
        const error = await scope;
        if (error && errors.length === 0) errors.push(error.message);
        if (errors.length === 0 && whole.includes(file)) {
          const made = device.createComputePipelineAsync({ layout: "auto", compute: { module } });
          await made.catch((error) => errors.push(error.message));
        }
        if (errors.length > 0) said.push({ file, errors });
      };
      const usable = texts.filter(({ code }) => subgroups || !code.startsWith("enable subgroups;"));
      await Promise.all(usable.map(check));
      device.destroy();
      return { said, texts: usable.length, subgroups };
    },
    texts,
    whole,
  );
}

across("every kernel compiles", { devices: ["webgpu"] }, async (stage, t) => {
  const all = await texts();
  if (all.length === 0) return t.skip("no texts of kernels: run the tier gpu before, on a machine with a Vulkan driver");
  const folders = (await readdir(SHADERS)).filter((folder) => folder !== PARTS);
  const files = await Promise.all(folders.map((folder) => readdir(join(SHADERS, folder))));
  const wanted = files.flat().map((file) => file.replace(".wgsl", ""));
  const kernels = new Set(all.map(({ kernel }) => kernel));
  assert.deepEqual(wanted.filter((name) => !kernels.has(name)), [], "kernels that the native tests do not run");

  // One source of each variant becomes a pipeline: the others differ in numbers only. Chromium's software adapter takes a second
  // per pipeline, so there it is one per kernel, with and without subgroups; other tests create the pipelines that models use.
  const kind = ({ kernel, variant, code }) => (stage.name === "firefox" ? variant : `${kernel} ${code.startsWith("enable")}`);
  const first = new Map(all.toReversed().map((text) => [kind(text), text.file]));
  const found = await refusals(stage.page, all, [...first.values()]);
  assert.deepEqual(found.said, []);
  assert.ok(found.texts > all.length / 2);
  t.diagnostic(`${found.texts} of ${all.length} texts, ${first.size} of them whole, of ${kernels.size} kernels; subgroups: ${found.subgroups}`);

  // Faults are detected: an undefined identifier, and more invocations than a workgroup is guaranteed to have.
  const { code } = all.find(({ kernel }) => kernel === "gelu");
  const wrong = [
    { file: "word", code: `${code}\nfn more() -> f32 { return nowhere; }` },
    { file: "invocations", code: "@compute @workgroup_size(512) fn main() {}" },
  ];
  const { said } = await refusals(stage.page, wrong, ["word", "invocations"]);
  assert.deepEqual(said.map(({ file }) => file).sort(), ["invocations", "word"]);
});
