/** Where a pack's files are kept. */

import type { FileEntry } from "./manifest.js";

/**
 * Where verified files are kept. The loader knows this interface only; behind it are the origin private file system (a
 * page), a folder (Node) or nothing.
 *
 * A file has two states: *partial* (`<name>.part`: a prefix that may be continued) and *whole* (`<name>`: its hash was
 * right). Only `commit` leads from one to the other, in one step, so that nothing half-written is ever taken for whole.
 */
export interface Store {
  /** Lengths of everything kept, by name, partial files with `.part`. */
  sizes(): Promise<Map<string, number>>;
  /** A small text; `null` where there is none. */
  readText(name: string): Promise<string | null>;
  writeText(name: string, text: string): Promise<void>;
  /** Opens a whole file; `null` where there is none. */
  open(name: string): Promise<Readable | null>;
  /** Opens a partial file, an empty one where there is none. */
  partial(name: string): Promise<Partial>;
  remove(name: string): Promise<void>;
  /** Runs `work` while nobody else, in this or another tab, works on the file. */
  exclusive<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export interface Readable {
  readonly size: number;
  /** Fills `into` from offset `at`; returns how many bytes there were. */
  read(into: Uint8Array, at: number): Promise<number> | number;
  close(): Promise<void> | void;
}

export interface Partial extends Readable {
  /** Writes at offset `at`, and has it on the disk when it returns. */
  write(bytes: Uint8Array, at: number): Promise<void> | void;
  truncate(size: number): Promise<void> | void;
  /** Makes it the whole file, and closes it. */
  commit(): Promise<void>;
}

/** Beside a pack's files: its manifest as it was last fetched, and where from. */
export const PACK_FILE = "pack.json";

export interface PackFile {
  url: string;
  manifest: string;
}

/** Steps in which files are written, hashed and resumed. */
export const CHECKPOINT = 4 << 20;

/** The name of a pack in the cache: its address without its query, since signatures and tokens do not name packs, and are not to be kept. */
export function keyOf(url: string): string {
  return url.replace(/[?#].*$/, "");
}

/** The folder of a pack: plain, and the same for the same address. */
export async function folderOf(url: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(keyOf(url)));
  return [...new Uint8Array(digest, 0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The name under which a file is kept: another content is another file, also where a pack was replaced in its place. */
export function storedName({ file, sha256 }: { file: string; sha256: string }): string {
  return `${file}.${sha256.slice(0, 16)}`;
}

/** Whether an error says that there is no room left. */
export function isFull(error: unknown): boolean {
  const { name, code } = (error ?? {}) as { name?: string; code?: string };
  return name === "QuotaExceededError" || code === "ENOSPC" || code === "EDQUOT";
}

/** Keeps nothing. */
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

/** Bytes that are here of each file, whole or in part. */
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
