/** The origin private file system: one folder per pack. */

import { EmuError } from "./errors.js";
import { type Backend, locked, type Partial, type Readable, type Store } from "./store.js";

const ROOT = "emu-webgpu";

/** The folder of all packs. @throws if the browser has no such file system (private windows, plain http). */
async function root(): Promise<FileSystemDirectoryHandle> {
  const top = await navigator.storage.getDirectory();
  return top.getDirectoryHandle(ROOT, { create: true });
}

/** Opens a file for reading and writing. `rename` turns it into the whole file. */
export type OpenFile = (handle: FileSystemFileHandle, rename?: () => Promise<void>) => Promise<Partial>;

/** By access handles, which only dedicated workers have. For other contexts see `streamfile.ts`. */
const openSync: OpenFile = async (handle, rename) => new SyncFile(await handle.createSyncAccessHandle(), rename);

/** @throws if the browser refuses it. */
export async function openOpfs(openFile = openSync): Promise<Backend> {
  const folders = await root();
  return {
    async folders() {
      const names: string[] = [];
      for await (const [name, { kind }] of folders.entries()) if (kind === "directory") names.push(name);
      return names;
    },
    async open(name, create) {
      const folder = await folders.getDirectoryHandle(name, { create }).catch(ignoreMissing);
      return folder && new OpfsStore(folder, `${ROOT}/${name}`, openFile);
    },
    async delete(name) {
      await folders.removeEntry(name, { recursive: true }).catch(ignoreMissing);
    },
  };
}

class OpfsStore implements Store {
  readonly #folder: FileSystemDirectoryHandle;
  readonly #path: string;
  readonly #open: OpenFile;

  constructor(folder: FileSystemDirectoryHandle, path: string, open: OpenFile) {
    [this.#folder, this.#path, this.#open] = [folder, path, open];
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
      await partial.truncate(0);
      await partial.write(new TextEncoder().encode(text), 0);
      await partial.commit();
    } finally {
      await partial.close();
    }
  }

  async open(name: string): Promise<Readable | null> {
    const handle = await this.#handle(name);
    return handle && this.#open(handle);
  }

  async partial(name: string): Promise<Partial> {
    const handle = await this.#folder.getFileHandle(`${name}.part`, { create: true });
    return this.#open(handle, () => this.#rename(handle, name));
  }

  async remove(name: string): Promise<void> {
    await this.#folder.removeEntry(name).catch(ignoreMissing);
  }

  exclusive<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return locked(`${this.#path}/${name}`, signal, work);
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
