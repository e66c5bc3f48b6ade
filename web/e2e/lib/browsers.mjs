/** The system's Chromium and Firefox, with software GPUs. */

import { existsSync } from "node:fs";

import puppeteer from "puppeteer-core";

/** Timeout in milliseconds of a single protocol call. Software GPUs are slow, and so are shared machines. */
const PATIENCE = 15 * 60_000;
/** Default timeout in milliseconds of what a page is waited for. Puppeteer's own is 30 s. */
const WAIT = 5 * 60_000;

const KINDS = {
  chromium: {
    title: "Chromium",
    program: process.env.EMU_CHROMIUM || "/usr/bin/chromium",
    options: ({ webgpu, flags = [] }) => ({
      browser: "chrome",
      args: [
        "--headless=new",
        "--no-sandbox",
        // Background tabs are tested too, and must run at full speed.
        "--disable-background-timer-throttling",
        "--disable-renderer-backgrounding",
        ...(webgpu ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader"] : []),
        ...flags,
      ],
    }),
  },
  firefox: {
    title: "Firefox",
    program: process.env.EMU_FIREFOX || "/usr/bin/firefox-esr",
    options: ({ webgpu, preferences = {} }) => ({
      browser: "firefox",
      headless: true,
      extraPrefsFirefox: { "dom.webgpu.enabled": webgpu, "gfx.webgpu.ignore-blocklist": true, ...preferences },
    }),
  },
};

/** The names of the browsers. */
export const BROWSERS = Object.keys(KINDS);

/** Why a browser cannot be used here; `false` if it can. */
export function absent(name) {
  const { title, program } = KINDS[name];
  return existsSync(program) ? false : `${title} is not installed (${program})`;
}

/**
 * Starts a browser with a fresh profile, whose pages are waited for patiently.
 *
 * @param {"chromium" | "firefox"} name
 * @param {{ webgpu?: boolean, profile?: string, extensions?: string[], flags?: string[], preferences?: object }} [how] `profile` is a
 * folder to keep; `extensions` (folders) and `flags` are for Chromium, `preferences` for Firefox.
 */
export async function launch(name, { webgpu = true, profile, extensions, ...how } = {}) {
  const { program, options } = KINDS[name];
  const browser = await puppeteer.launch({
    executablePath: program,
    protocolTimeout: PATIENCE,
    timeout: PATIENCE,
    ...(profile && { userDataDir: profile }),
    ...(extensions && { enableExtensions: extensions, pipe: true }),
    ...options({ webgpu, ...how }),
  });
  const open = browser.newPage.bind(browser);
  browser.newPage = async (...args) => {
    const page = await open(...args);
    page.setDefaultTimeout(WAIT);
    return page;
  };
  return browser;
}

/** Runs in the page: describes the WebGPU adapter; `null` if there is none. */
export async function adapterOf(page) {
  return page.evaluate(async () => {
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    if (!adapter) return null;
    const { vendor, architecture, description } = adapter.info ?? {};
    return [vendor, architecture, description].filter(Boolean).join(" ") || "unnamed adapter";
  });
}
