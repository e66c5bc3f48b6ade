/** The pack's URL and its manifest, read before a worker exists. */

import { isPage, pageAt } from "./answer.js";
import { EmuError, throwIfAborted } from "./errors.js";
import { type Manifest, parseManifest } from "./manifest.js";
import { sleep } from "./turn.js";
import type { PackFiles, PackLocation } from "./types.js";
import { keyOf, PACK_FILE, type PackFile, type Store } from "./store.js";

/** Normalized location of a pack. */
export interface PackAddress {
  /** Absolute URL with a trailing slash. For a pack given by its files: its cache key. */
  url: string;
  files?: PackFiles["files"] | undefined;
}

/** Maximum attempts to fetch the manifest. */
const ATTEMPTS = 3;

/** A manifest and the text that it was read from. */
export interface Pack {
  text: string;
  manifest: Manifest;
}

export function packAddress(given: PackLocation, base?: string): PackAddress {
  if (typeof given === "string" || given instanceof URL) return { url: packUrl(given, base) };
    return { url: packUrl(given.url, base), files: addresses(given) };

}

function addresses(given: PackFiles): PackFiles["files"] {
  try {
    return { ...given.files };
  } catch (cause) {
    // `files` may be a getter that reads `import.meta.url`.
    const what = `${given.url} has no addresses: the page's bundle is no ES module. Copy the pack's folder, and load that address.`;
    throw new EmuError("not-found", what, { cause });
  }
}

/** URL of a file of a pack. A query of the pack's URL (for example a signature) is appended to every file. */
export function fileUrl({ url, files }: PackAddress, file: string): string {
  if (!files) {
    const found = new URL(file, url);
    found.search = new URL(url).search;
    return found.href;
  }
  const found = Object.hasOwn(files, file) ? files[file] : undefined;
  if (found === undefined)
    throw new EmuError("not-found", `The pack ${keyOf(url)} has no address for ${file}. Add it to its files.`);
  return found;
}

/** `models/emu-mini`, `models/emu-mini/` and `models/emu-mini/emu.json` are the same pack. */
export function packUrl(given: string | URL, base?: string): string {
  let url: URL;
  try {
    url = new URL(given, base);
  } catch (cause) {
    throw new EmuError("bad-request", `${String(given)} is not an address. Give the URL of the pack's folder.`, {
      cause,
    });
  }
  url.hash = "";
  url.pathname = url.pathname.replace(/(\/emu\.json|\/)?$/, "/");
  return url.href;
}

/** Fetches the manifest; falls back to the stored one if the network fails. */
export async function fetchPack(
  pack: PackAddress,
  store: Store | null,
  fetch: typeof globalThis.fetch,
  signal?: AbortSignal,
): Promise<Pack> {
  const address = fileUrl(pack, "emu.json");
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await fetch(address, { cache: "no-cache", signal });
      if (response.status === 404 || response.status === 410) {
        throw notThere(`there is nothing at ${keyOf(address)}`, pack);
      }
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      const text = await response.text();
      if (isPage(text)) throw notThere(pageAt(address), pack);
      return { text, manifest: parseManifest(text) };
    } catch (error) {
      throwIfAborted(signal);
      if (error instanceof EmuError) throw error;
      const kept = await keptManifest(store);
      if (kept !== null) return { text: kept, manifest: parseManifest(kept) };
      if (attempt === ATTEMPTS) {
        const why = error instanceof TypeError ? "the connection failed" : (error as Error).message;
        throw new EmuError("fetch", `emu.json could not be fetched: ${why}. Check the connection and try again.`, {
          cause: error,
        });
      }
      await sleep(500 * attempt, signal);
    }
  }
}

function notThere(why: string, { url, files }: PackAddress): EmuError {
  const advice = files
    ? "Bundlers that do not follow `new URL(..., import.meta.url)` leave the pack out: copy its folder, and load that address"
    : "Check the pack's address";
  return new EmuError("not-found", `emu.json of ${keyOf(url)} could not be read: ${why}. ${advice}.`);
}

/** The base of relative URLs; undefined in Node. */
export function base(): string | undefined {
  const { document, location } = globalThis as { document?: Document; location?: Location };
  return document?.baseURI ?? location?.href;
}

async function keptManifest(store: Store | null): Promise<string | null> {
  try {
    return (JSON.parse((await store?.readText(PACK_FILE)) ?? "null") as PackFile | null)?.manifest ?? null;
  } catch {
    return null;
  }
}
