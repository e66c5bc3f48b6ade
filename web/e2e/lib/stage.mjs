/** The setup of most tests: a browser, a site with the installed packages, a server with a pack, and a page. */

import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { serveWithFaults } from "../../server/faults.mjs";
import { absent, adapterOf, BROWSERS, launch } from "./browsers.mjs";
import { freshProject, importMap } from "./project.mjs";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const here = fileURLToPath(new URL(".", import.meta.url));

/** The trained model in half precision. It is larger: its shards take several checkpoints of 4 MiB. */
export const LARGE = join(root, "models/emu-mini");
/** The pack as the packages contain it. */
export const PACK = existsSync(join(root, "web/mini/pack/emu.json")) ? join(root, "web/mini/pack") : LARGE;
/** Why the tests of the package with the pack are skipped; `false` if it was built, so that a missing pack makes them fail. */
export const noMini = PACK === LARGE && "web/mini/pack is not built (cargo xtask test builds it)";
/** emu-smol, and why its tests are skipped; `false` if its pack is there. */
export const SMOL = join(root, "web/smol/pack");
export const noSmol = !existsSync(join(SMOL, "emu.json")) && "web/smol/pack is not built (it needs a language model that is fetched)";
/** Folder of the pictures that the tests use. */
export const PICTURES = join(LARGE, "demo");
/** The path of a picture. */
export const picture = (name) => join(PICTURES, name);

/** Whether to run the full counts of `cargo xtask soak`. */
export const SOAK = process.env.EMU_SOAK === "1";

/** Timeout of a test, in milliseconds. */
const PATIENCE = (SOAK ? 120 : 15) * 60_000;

/** Resources that are started once and shared by all tests of a file. */
const shared = new Map();
const once = (name, make) => shared.get(name) ?? shared.set(name, make()).get(name);

after(async () => {
  for (const [name, made] of shared) if (BROWSERS.includes(name)) await made.then(({ browser }) => browser.close(), () => {});
});

/** The installed project, with a page that imports nothing but the package. */
export function project() {
  return once("project", async () => {
    const made = await freshProject();
    const html = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A page</title>
<link rel="icon" href="data:,">
<script type="importmap">${await importMap(made.folder)}</script>
<script type="module" src="/lab/inside.js"></script>
`;
    await writeFile(join(made.folder, "lab.html"), html);
    return made;
  });
}

/** The browser of this name, and its adapter. */
function browserOf(name) {
  return once(name, async () => {
    const browser = await launch(name);
    // WebGPU needs a secure context.
    const site = await serveWithFaults([{ prefix: "/", folder: here }]);
    const page = await browser.newPage();
    await page.goto(`${site.url}inside.js`);
    const adapter = await adapterOf(page);
    await page.close();
    await site.close();
    return { browser, adapter };
  });
}

/**
 * Declares a test for every browser and device. Those that are missing are skipped with the reason.
 *
 * @param {string} title
 * @param {{ browsers?: string[], devices?: ("cpu" | "webgpu")[], pack?: string }} where
 * @param {(stage: Stage, t: import("node:test").TestContext) => Promise<void>} body
 */
export function across(title, { browsers = BROWSERS, devices = ["cpu"], pack = PACK }, body) {
  for (const name of browsers) {
    for (const device of devices) {
      test(`${title} (${name}, ${device})`, { skip: absent(name), timeout: PATIENCE }, async (t) => {
        const { browser, adapter } = await browserOf(name);
        if (device === "webgpu" && !adapter) return t.skip(`${name} has no WebGPU adapter here`);
        const stage = new Stage(name, browser, device);
        t.after(() => stage.close());
        await stage.begin(pack);
        try {
          await body(stage, t);
        } catch (error) {
          if (stage.problems.length) t.diagnostic(`the page said: ${stage.problems.join(" | ").slice(0, 2000)}`);
          throw error;
        }
      });
    }
  }
}

/** Its own site (a fresh origin, so that nothing is cached), a server with a pack, and the first page. */
export class Stage {
  /** Errors and warnings of all pages. */
  problems = [];
  pages = [];

  constructor(name, browser, device) {
    Object.assign(this, { name, browser, device });
  }

  /** Starts the servers and opens the page. `headers` apply to files of the site: see `parseHeaders` of the server. */
  async begin(pack, headers = "") {
    const { folder } = await project();
    this.folder = pack;
    const mounts = [
      { prefix: "/", folder },
      { prefix: "/lab/", folder: here },
      { prefix: "/pictures/", folder: PICTURES },
    ];
    this.site = await serveWithFaults(mounts, { headers });
    // A different origin than the page's, as is common for packs.
    this.store = await serveWithFaults([{ prefix: "/", folder: pack }]);
    this.pack = this.store.url;
    this.page = await this.open();
  }

  /** Opens another page of the same origin. */
  async open(browser = this.browser) {
    const page = await browser.newPage();
    this.pages.push(page);
    page.on("pageerror", (error) => this.problems.push(String(error)));
    page.on("console", (message) => ["error", "warn"].includes(message.type()) && this.problems.push(message.text()));
    await this.show(page);
    return page;
  }

  /** Loads or reloads the page. */
  async show(page = this.page) {
    await page.goto(`${this.site.url}lab.html`);
    await page.waitForFunction(() => globalThis.lab !== undefined);
  }

  /** Loads the pack into `lab.emu` of a page. Throws if that fails. */
  async load(options = {}, page = this.page) {
    const loaded = await this.tryLoad(options, page);
    if (loaded.error) throw new Error(`loading failed: ${JSON.stringify(loaded.error)}`);
    return loaded;
  }

  tryLoad(options = {}, page = this.page) {
    return page.evaluate((url, options) => lab.load(url, options), this.pack, { device: this.device, ...options });
  }

  /** Requested files of the pack. */
  get fetched() {
    return [...new Set(this.store.log.map(({ path }) => path.slice(1)))].sort();
  }

  async close() {
    for (const page of this.pages) await page.close().catch(() => {});
    await this.site?.close();
    await this.store?.close();
  }
}
