/** The packs that this origin has stored: in the origin private file system, or where that is refused, in the Cache API. */

import { cacheApi } from "./cachestore.js";
import { type Manifest, parseManifest } from "./manifest.js";
import { type OpenFile, openOpfs } from "./opfs.js";
import { type Backend, folderOf, PACK_FILE, type PackFile, type Store, storedName } from "./store.js";
import type { CachedModel, Progress } from "./types.js";

/** @throws if the browser offers neither: in a page that is not secure, or has no origin. */
async function backend(openFile?: OpenFile): Promise<Backend> {
  try {
    return await openOpfs(openFile);
  } catch (error) {
    if (typeof caches === "undefined") throw error;
    return cacheApi;
  }
}

/** The store of the pack at `url`. `openFile` is for contexts other than dedicated workers, if they write. */
export async function openStorage(url: string, create: true, openFile?: OpenFile): Promise<Store>;
/** The same; `null` if nothing is stored yet. */
export async function openStorage(url: string, create: boolean): Promise<Store | null>;
export async function openStorage(url: string, create: boolean, openFile?: OpenFile): Promise<Store | null> {
  return (await backend(openFile)).open(await folderOf(url), create);
}

/** The packs that this origin has cached. */
export async function listCache(): Promise<CachedModel[]> {
  const place = await backend();
  const models: CachedModel[] = [];
  for (const folder of await place.folders()) {
    const store = await place.open(folder, false);
    const pack = readPackFile((await store?.readText(PACK_FILE)) ?? null);
    if (!store || !pack) continue;
    const sizes = await store.sizes();
    models.push({
      url: pack.url,
      name: pack.manifest.name,
      bytes: [...sizes.values()].reduce((sum, size) => sum + size, 0),
      complete: [...pack.manifest.shards, ...pack.manifest.files].every(
        (file) => sizes.get(storedName(file)) === file.bytes,
      ),
    });
  }
  return models;
}

/** Deletes a pack from the cache. @throws {EmuError} `cache` while a page has its files open. */
export async function deleteCache(url: string): Promise<void> {
  await (await backend()).delete(await folderOf(url));
}

/**
 * Asks the browser not to delete what this origin stores when space runs short. Some browsers ask the user, so nothing waits for
 * the answer. Reports a warning if it is no.
 */
export async function persist(report: ((progress: Progress) => void) | undefined): Promise<void> {
  if (await navigator.storage?.persist?.().catch(() => false)) return;
  report?.({ phase: "warning", code: "not-persistent", message: "The browser may delete the stored pack when space runs short." });
}

function readPackFile(text: string | null): { url: string; manifest: Manifest } | null {
  try {
    const { url, manifest } = JSON.parse(text ?? "") as PackFile;
    return { url, manifest: parseManifest(manifest) };
  } catch {
    return null;
  }
}
