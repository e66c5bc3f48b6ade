/** A fresh project with the packages installed from their tarballs, as a user would have it. */

import { execFile } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const web = fileURLToPath(new URL("../..", import.meta.url));

/** Folders of the packages below `web`. */
const PACKAGES = ["package", "mini"].filter((name) => name === "package" || existsSync(join(web, name, "pack/emu.json")));

/** Folders to remove when the process exits normally. */
const temporary = [];
process.once("beforeExit", () => Promise.all(temporary.map((folder) => rm(folder, { recursive: true, force: true }))));

/** A temporary folder, removed when the process exits normally. */
export async function temporaryFolder(label) {
  const folder = await mkdtemp(join(tmpdir(), `emu-e2e-${label}-`));
  temporary.push(folder);
  return folder;
}

/**
 * Packs and installs the packages offline.
 *
 * @returns {Promise<{ folder: string, tarballs: Record<string, { path: string, bytes: number, unpacked: number, files: { path: string, size: number }[] }> }>}
 * the project's folder, and the tarballs by package name.
 */
export async function freshProject() {
  const folder = await temporaryFolder("project");
  const tarballs = {};
  for (const name of PACKAGES) {
    const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], { cwd: join(web, name), maxBuffer: 2 ** 24 });
    const [packed] = JSON.parse(stdout);
    const path = join(folder, packed.filename);
    tarballs[packed.name] = { path, bytes: (await stat(path)).size, unpacked: packed.unpackedSize, files: packed.files };
  }
  await writeFile(join(folder, "package.json"), JSON.stringify({ name: "a-page", private: true, type: "module" }));
  const paths = Object.values(tarballs).map(({ path }) => path);
  await run("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", ...paths], { cwd: folder, maxBuffer: 2 ** 24 });
  return { folder, tarballs };
}

/** An import map for a page served from the project's folder. */
export async function importMap(folder) {
  const imports = {};
  for (const name of ["emu-webgpu", "emu-webgpu-mini"]) {
    const home = join(folder, "node_modules", name);
    if (!existsSync(home)) continue;
    const { exports } = JSON.parse(await readFile(join(home, "package.json"), "utf8"));
    for (const [path, entry] of Object.entries(typeof exports === "string" ? { ".": exports } : exports)) {
      const script = typeof entry === "string" ? entry : entry.default;
      // Skips the entry for Node, and entries that are no scripts.
      if (path === "./node" || !script?.endsWith(".js")) continue;
      imports[name + path.slice(1)] = `/node_modules/${name}/${script.replace("./", "")}`;
    }
  }
  return JSON.stringify({ imports }, null, 2);
}

/** A copy of a pack with a changed manifest and without its shards. */
export async function changedPack(pack, change) {
  const folder = await temporaryFolder("pack");
  const manifest = JSON.parse(await readFile(join(pack, "emu.json"), "utf8"));
  for (const { file } of manifest.files) await copyFile(join(pack, file), join(folder, file));
  change(manifest);
  await writeFile(join(folder, "emu.json"), JSON.stringify(manifest));
  return folder;
}
