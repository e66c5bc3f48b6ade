/** The origin private file system: one folder per pack. */

import { EmuError } from "./errors.js";
import { type Manifest, parseManifest } from "./manifest.js";
import { folderOf, PACK_FILE, type PackFile, type Partial, type Readable, type Store, storedName } from "./store.js";
import type { CachedModel } from "./types.js";

const ROOT = "emu-webgpu";
/** The folder of all packs. @throws if the browser has no such file system (private windows, plain http). */
async function root(): Promise<FileSystemDirectoryHandle> {
  const top = await navigator.storage.getDirectory();
  return top.getDirectoryHandle(ROOT, { create: true });
}

/** The store of the pack at `url`. Files can be opened and written in workers only. */
export async function openOpfs(url: string, create: true): Promise<Store>;
/** The same; `null` if nothing is stored yet. */
export async function openOpfs(url: string, create: boolean): Promise<Store | null>;
export async function openOpfs(url: string, create: boolean): Promise<Store | null> {
  const name = await folderOf(url);
  const folder = await (await root()).getDirectoryHandle(name, { create }).catch(ignoreMissing);
  return folder && new OpfsStore(folder, `${ROOT}/${name}`);
}

class OpfsStore implements Store {
  readonly #folder: FileSystemDirectoryHandle;
  readonly #path: string;

  constructor(folder: FileSystemDirectoryHandle, path: string) {
    [this.#folder, this.#path] = [folder, path];
  }

  async sizes(): Promise<Map<string, number>> {
    const sizes = new Map<string, number>();
    for await (const [name, handle] of this.#folder.entries()) {
      if (handle.kind === "file") sizes.set(name, await sizeOf(handle as FileSystemFileHandle));
    }
    return sizes;
  }

  async readText(name: string): Promise<string | null> {
    const handle = await this.#handle(name);
    return handle && (await handle.getFile()).text();
  }

  async writeText(name: string, text: string): Promise<void> {
    const partial = await this.partial(name);
    try {
      partial.truncate(0);
      partial.write(new TextEncoder().encode(text), 0);
      await partial.commit();
    } finally {
      partial.close();
    }
  }

  async open(name: string): Promise<Readable | null> {
    const handle = await this.#handle(name);
    return handle && new SyncFile(await handle.createSyncAccessHandle());
  }

  async partial(name: string): Promise<Partial> {
    const handle = await this.#folder.getFileHandle(`${name}.part`, { create: true });
    return new SyncFile(await handle.createSyncAccessHandle(), () => this.#rename(handle, name));
  }

  async remove(name: string): Promise<void> {
    await this.#folder.removeEntry(name).catch(ignoreMissing);
  }

  exclusive<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    // Without the Web Locks API, the access handles are exclusive themselves: the second tab works without the cache.
    const locks = navigator.locks as LockManager | undefined;
    return locks ? (locks.request(`${this.#path}/${name}`, { signal }, work) as Promise<T>) : work();
  }

  async #handle(name: string): Promise<FileSystemFileHandle | null> {
    return this.#folder.getFileHandle(name).catch(ignoreMissing);
  }

  async #rename(handle: FileSystemFileHandle, name: string): Promise<void> {
    await this.remove(name);
    // Every browser with access handles has `move`, but no type library declares it yet.
    await (handle as FileSystemFileHandle & { move(name: string): Promise<void> }).move(name);
  }
}

class SyncFile implements Partial {
  readonly #access: FileSystemSyncAccessHandle;
  readonly #rename: () => Promise<void>;

  constructor(access: FileSystemSyncAccessHandle, rename = async () => {}) {
    [this.#access, this.#rename] = [access, rename];
  }

  get size(): number {
    return this.#access.getSize();
  }

  read(into: Uint8Array, at: number): number {
    return this.#access.read(into as Uint8Array<ArrayBuffer>, { at });
  }

  write(bytes: Uint8Array, at: number): void {
    const written = this.#access.write(bytes as Uint8Array<ArrayBuffer>, { at });
    // Some browsers write what fits and return its length.
    if (written < bytes.length)
      throw new DOMException("The file could not be written to its end.", "QuotaExceededError");
    this.#access.flush();
  }

  truncate(size: number): void {
    this.#access.truncate(size);
  }

  async commit(): Promise<void> {
    this.#access.close();
    await this.#rename();
  }

  close(): void {
    this.#access.close();
  }
}

/** The packs that this origin has cached. */
export async function listCache(): Promise<CachedModel[]> {
  const models: CachedModel[] = [];
  for await (const [, handle] of (await root()).entries()) {
    if (handle.kind !== "directory") continue;
    const store = new OpfsStore(handle as FileSystemDirectoryHandle, "");
    const sizes = await store.sizes();
    const pack = readPackFile(await store.readText(PACK_FILE));
    if (!pack) continue;
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
  const folders = await root();
  await folders.removeEntry(await folderOf(url), { recursive: true }).catch(ignoreMissing);
}

function readPackFile(text: string | null): { url: string; manifest: Manifest } | null {
  try {
    const { url, manifest } = JSON.parse(text ?? "") as PackFile;
    return { url, manifest: parseManifest(manifest) };
  } catch {
    return null;
  }
}

async function sizeOf(handle: FileSystemFileHandle): Promise<number> {
  // The file is missing if another tab has just renamed it.
  const file = await handle.getFile().catch(ignoreMissing);
  return file?.size ?? 0;
}

function ignoreMissing(error: unknown): null {
  if ((error as DOMException).name === "NotFoundError") return null;
  if ((error as DOMException).name === "NoModificationAllowedError") {
    throw new EmuError("cache", "The pack is in use by a page. Dispose of it there, then try again.", { cause: error });
  }
  throw error;
}
