/** The package that carries the shipped pack. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { temporaryFolder } from "./pack.mjs";

const here = fileURLToPath(new URL("..", import.meta.url));
const read = async (path) => JSON.parse(await readFile(join(here, path), "utf8"));

/** Both packages as npm would lay them out; `spoil` may change the copy of the pack's. */
async function install(t, spoil = async () => {}) {
  const folder = await temporaryFolder(t);
  const mini = join(folder, "node_modules/emu-webgpu-mini");
  await mkdir(mini, { recursive: true });
  await symlink(here, join(folder, "node_modules/emu-webgpu"));
  for (const name of ["package.json", "index.js"]) await cp(join(here, "../mini", name), join(mini, name));
  await spoil(mini);
  return pathToFileURL(join(mini, "index.js")).href;
}

test("its addresses are those of the files in its folder", async (t) => {
  const script = await install(t);
  const { pack, url, version } = await import(script);
  const folder = new URL("./pack/", script).href;
  assert.equal(url, folder);
  // What is shipped, and the quantized pack beside it, if that was made.
  for (const manifest of ["../../models/emu-mini/emu.json", "../mini/pack/emu.json"]) {
    if (!existsSync(join(here, manifest))) continue;
    const { shards } = await read(manifest);
    const names = ["emu.json", "tokenizer.json", ...shards.map(({ file }) => file)].sort();
    assert.deepEqual(Object.keys(pack.files).sort(), names);
  }
  for (const [name, address] of Object.entries(pack.files)) assert.equal(address, folder + name);
  assert.equal(version, (await read("../mini/package.json")).version);
});

test("it refuses an emu-webgpu of another version", async (t) => {
  const { fits } = await import(await install(t));
  assert.deepEqual(["0.1.0", "0.1.9", "0.2.0", "1.1.0"].map(fits), [true, true, false, false]);
  const other = await install(t, async (mini) => {
    const script = await readFile(join(mini, "index.js"), "utf8");
    await writeFile(join(mini, "index.js"), script.replace('version = "0.1.0"', 'version = "0.2.0"'));
  });
  await assert.rejects(import(other), {
    name: "EmuError",
    code: "version",
    message: /mini 0\.2\.0 does not go with emu-webgpu 0\.1\.0/,
  });
});
