/** A folder as a store, for Node. */

import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { throwIfAborted } from "./errors.js";
import { folderOf, type Partial, type Readable, type Store } from "./store.js";

/** The store of the pack at `url` within `root`. */
export async function folderStore(root: string, url: string): Promise<Store> {
  const folder = join(root, await folderOf(url));
  await mkdir(folder, { recursive: true });
  return new FolderStore(folder);
}

/** The last work on each file, in this process. Other processes are not locked out. */
const busy = new Map<string, Promise<unknown>>();

class FolderStore implements Store {
  constructor(private readonly folder: string) {}

  async sizes(): Promise<Map<string, number>> {
    const names = await readdir(this.folder);
    const size = async (name: string) => [name, (await stat(this.path(name)).catch(ignoreMissing))?.size ?? 0] as const;
    return new Map(await Promise.all(names.map(size)));
  }

  readText(name: string): Promise<string | null> {
    return readFile(this.path(name), "utf8").catch(ignoreMissing);
  }

  async writeText(name: string, text: string): Promise<void> {
    await writeFile(this.path(`${name}.part`), text);
    await rename(this.path(`${name}.part`), this.path(name));
  }

  async open(name: string): Promise<Readable | null> {
    const handle = await open(this.path(name), "r").catch(ignoreMissing);
    return handle && OpenFile.of(handle);
  }

  async partial(name: string): Promise<Partial> {
    const part = this.path(`${name}.part`);
    // Opens for reading and writing: without truncating, and without failing if the file is missing.
    const handle = await open(part, "r+").catch(ignoreMissing);
    return OpenFile.of(handle ?? (await open(part, "w+")), () => rename(part, this.path(name)));
  }

  async remove(name: string): Promise<void> {
    await rm(this.path(name), { force: true });
  }

  async exclusive<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const path = this.path(name);
    const before = busy.get(path) ?? Promise.resolve();
    const mine = before.then(() => {
      throwIfAborted(signal);
      return work();
    });
    busy.set(
      path,
      mine.catch(() => {}),
    );
    return mine;
  }

  private path(name: string): string {
    return join(this.folder, name);
  }
}

class OpenFile implements Partial {
  private closed = false;

  private constructor(
    private readonly handle: FileHandle,
    readonly size: number,
    private readonly rename: () => Promise<void>,
  ) {}

  static async of(handle: FileHandle, rename: () => Promise<void> = async () => {}): Promise<OpenFile> {
    return new OpenFile(handle, (await handle.stat()).size, rename);
  }

  async read(into: Uint8Array, at: number): Promise<number> {
    return (await this.handle.read(into, 0, into.length, at)).bytesRead;
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      done += (await this.handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
    }
    await this.handle.datasync();
  }

  async truncate(size: number): Promise<void> {
    await this.handle.truncate(size);
  }

  async commit(): Promise<void> {
    await this.close();
    await this.rename();
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.handle.close();
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT") return null;
  throw error;
}
