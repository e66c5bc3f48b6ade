/** The packages that contain the shipped packs. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { temporaryFolder } from "./pack.mjs";

const here = fileURLToPath(new URL("..", import.meta.url));
const read = async (path) => JSON.parse(await readFile(join(here, path), "utf8"));
const MB = 1e6;

/** Per package: possible locations of its manifest, each of which is compared if it exists, and the maximum bytes of the pack. */
const PACKAGES = [
  { name: "mini", manifests: ["../../models/emu-mini/emu.json", "../mini/pack/emu.json"], budget: 22 * MB },
  { name: "smol", manifests: ["../../models/emu-smol/pack/emu.json", "../smol/pack/emu.json"], budget: 130 * MB },
];

/** Both packages in the layout of npm; `spoil` may change the copy of the pack's package. */
async function install(t, name, spoil = async () => {}) {
  const folder = await temporaryFolder(t);
  const own = join(folder, `node_modules/emu-webgpu-${name}`);
  await mkdir(own, { recursive: true });
  await symlink(here, join(folder, "node_modules/emu-webgpu"));
  for (const file of ["package.json", "index.js"]) await cp(join(here, "..", name, file), join(own, file));
  await spoil(own);
  return pathToFileURL(join(own, "index.js")).href;
}

for (const { name, manifests, budget } of PACKAGES) {
  test(`emu-webgpu-${name}: its addresses are those of the files in its folder`, async (t) => {
    const script = await install(t, name);
    const { pack, url, version } = await import(script);
    const folder = new URL("./pack/", script).href;
    assert.equal(url, folder);
    for (const [file, address] of Object.entries(pack.files)) assert.equal(address, folder + file);
    assert.equal(pack.url, `npm:emu-webgpu-${name}`);
    assert.equal(version, (await read(`../${name}/package.json`)).version);
  });

  const there = manifests.filter((manifest) => existsSync(join(here, manifest)));
  const skip = there.length === 0 && `web/${name}/pack is not built`;
  test(`emu-webgpu-${name}: it lists its pack, all of it, which keeps within its budget`, { skip }, async (t) => {
    const { pack } = await import(await install(t, name));
    for (const manifest of there) {
      const { shards, files } = await read(manifest);
      const names = ["emu.json", "tokenizer.json", ...shards.map(({ file }) => file)].sort();
      assert.deepEqual(Object.keys(pack.files).sort(), names, `web/${name}/index.js lists other files than ${manifest}`);
      // Checks the published pack only: emu-mini in the repository is in half precision.
      if (manifest.startsWith("../../models/emu-mini/")) continue;
      const bytes = [...shards, ...files].reduce((sum, file) => sum + file.bytes, 0);
      assert.ok(bytes <= budget, `${bytes} bytes, the budget is ${budget}`);
    }
  });

  test(`emu-webgpu-${name}: it refuses an emu-webgpu of another version`, async (t) => {
    const made = (version) => async (own) => {
      const script = await readFile(join(own, "index.js"), "utf8");
      await writeFile(join(own, "index.js"), script.replace('version = "0.1.0"', `version = "${version}"`));
    };
    assert.equal((await import(await install(t, name, made("0.1.9")))).version, "0.1.9");
    for (const version of ["0.2.0", "1.1.0", "0.10.0"]) {
      await assert.rejects(import(await install(t, name, made(version))), {
        name: "EmuError",
        code: "version",
        message: `emu-webgpu-${name} ${version} does not go with emu-webgpu 0.1.0. Install the same version of both.`,
      });
    }
  });
}
