/** Storage for the files of packs. */

import type { FileEntry } from "./manifest.js";

/**
 * Storage for verified files. The loader knows this interface only. It is implemented by the origin private file system (in a
 * page), a folder (in Node), or nothing.
 *
 * A file has two states: *partial* (`<name>.part`: a prefix that can be resumed) and *whole* (`<name>`: its hash was verified).
 * Only `commit` leads from one to the other, in one step, so that an incomplete file is never taken for a whole one.
 */
export interface Store {
  /** Sizes of all stored files by name; partial files end in `.part`. */
  sizes(): Promise<Map<string, number>>;
  /** Content of a small text file; `null` if it is missing. */
  readText(name: string): Promise<string | null>;
  writeText(name: string, text: string): Promise<void>;
  /** Opens a whole file; `null` if it is missing. */
  open(name: string): Promise<Readable | null>;
  /** Opens a partial file; creates an empty one if it is missing. */
  partial(name: string): Promise<Partial>;
  remove(name: string): Promise<void>;
  /** Runs `work` with exclusive access to the file: nobody else, in this or another tab, works on it. */
  exclusive<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export interface Readable {
  readonly size: number;
  /** Reads into `into` from offset `at`. Returns the number of bytes read. */
  read(into: Uint8Array, at: number): Promise<number> | number;
  close(): Promise<void> | void;
}

export interface Partial extends Readable {
  /** Writes at offset `at`, and flushes to disk before it returns. */
  write(bytes: Uint8Array, at: number): Promise<void> | void;
  truncate(size: number): Promise<void> | void;
  /** Turns it into the whole file, and closes it. */
  commit(): Promise<void>;
}

/** A place of the browser where packs are stored, each in a folder. */
export interface Backend {
  folders(): Promise<string[]>;
  /** The store of a folder; `null` if it is missing and `create` is false. */
  open(folder: string, create: boolean): Promise<Store | null>;
  /** @throws {EmuError} `cache` while a page has its files open. */
  delete(folder: string): Promise<void>;
}

/** Runs `work` while no other tab or worker of this origin holds the lock. */
export function locked<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  // Without the Web Locks API, the access handles are exclusive themselves: the second tab works without the cache.
  const locks = navigator.locks as LockManager | undefined;
  return locks ? (locks.request(name, { signal }, work) as Promise<T>) : work();
}

/** Name of the file with the last fetched manifest of the pack and its URL. */
export const PACK_FILE = "pack.json";

export interface PackFile {
  url: string;
  manifest: string;
}

/** Step size in bytes for writing, hashing and resuming. */
export const CHECKPOINT = 4 << 20;

/** Cache key of a pack: its URL without the query. Signatures and tokens do not identify packs and must not be stored. */
export function keyOf(url: string): string {
  return url.replace(/[?#].*$/, "");
}

/** Folder name of a pack: a hash of its cache key. */
export async function folderOf(url: string): Promise<string> {
  return (await sha256(new TextEncoder().encode(keyOf(url)))).slice(0, 32);
}

/** SHA-256 in hexadecimal digits, by the browser, which has it in secure contexts only. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Name under which a file is stored. New content gets a new name, even if a pack was replaced under the same URL. */
export function storedName({ file, sha256 }: { file: string; sha256: string }): string {
  return `${file}.${sha256.slice(0, 16)}`;
}

/** Whether an error says that the storage is full. */
export function isFull(error: unknown): boolean {
  const { name, code } = (error ?? {}) as { name?: string; code?: string };
  return name === "QuotaExceededError" || code === "ENOSPC" || code === "EDQUOT";
}

/** The null store: it stores nothing. */
export const noStore: Store = {
  sizes: async () => new Map(),
  readText: async () => null,
  writeText: async () => {},
  open: async () => null,
  partial: async () => ({
    size: 0,
    read: () => 0,
    close: () => {},
    write: () => {},
    truncate: () => {},
    commit: async () => {},
  }),
  remove: async () => {},
  exclusive: (_name, _signal, work) => work(),
};

/** Stored bytes of each file, whole or partial. */
export async function cachedBytes(store: Store | null, files: readonly FileEntry[]): Promise<Map<string, number>> {
  const sizes = (await store?.sizes().catch(() => null)) ?? new Map<string, number>();
  return new Map(
    files.map((entry) => {
      const name = storedName(entry);
      const partial = sizes.get(`${name}.part`) ?? 0;
      return [entry.file, sizes.get(name) ?? Math.min(entry.bytes, partial - (partial % CHECKPOINT))];
    }),
  );
}
