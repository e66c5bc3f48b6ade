/** Downloads a pack into the cache: without a worker, a device or a WASM module, so that service workers can do it too. */

export { EmuError, type EmuErrorCode } from "./errors.js";

import type { Source } from "./download.js";
import { EmuError } from "./errors.js";
import { Loader } from "./loader.js";
import { base, fetchPack, packAddress } from "./pack.js";
import { openStorage, persist } from "./storage.js";
import { isFull, sha256 } from "./store.js";
import { openStream } from "./streamfile.js";
import type { Component, PackLocation, Progress } from "./types.js";

/** Options of `Emu.prefetch`. */
export interface PrefetchOptions {
  signal?: AbortSignal;
  /** Receives `download` and `warning`. */
  onProgress?: (progress: Progress) => void;
  /** Components to download. Default: those that `Emu.load` loads, `["vision", "lm"]`. */
  components?: Component[];
  /** Whether to ask the browser not to delete the pack when space runs short. Default: false. */
  persist?: boolean;
}

/** An engine that drops what it is given: the files are in the cache by then. */
const NOWHERE = { loaded: () => false, shard: () => {}, finish: async () => {}, unload: () => {} };

/** `Emu.prefetch`: see there. */
export async function prefetch(given: PackLocation, options: PrefetchOptions = {}): Promise<void> {
  const { signal = new AbortController().signal, onProgress, components = ["vision", "lm"] } = options;
  if (options.persist) void persist(onProgress);
  const pack = packAddress(given, base());
  const inWorker = "createSyncAccessHandle" in (globalThis.FileSystemFileHandle?.prototype ?? {});
  const store = await openStorage(pack.url, true, inWorker ? undefined : openStream).catch((error) => {
    throw notKept(error);
  });
  const { text, manifest } = await fetchPack(pack, store, fetch, signal);
  const source: Source = {
    pack,
    store,
    fetch,
    newHasher: (bytes) => new WholeHasher(bytes),
    onStoreFailure: (error) => {
      throw notKept(error);
    },
  };
  const loader = new Loader(manifest, source);
  await loader.keepManifest(text, signal);
  await loader.tokenizer(signal);
  await loader.load(components, NOWHERE, signal, (progress) => {
    if (progress.phase === "download") onProgress?.(progress);
  });
}

/** The browser's hash function takes a file as a whole. */
class WholeHasher {
  #length = 0;

  constructor(private readonly bytes: Uint8Array) {}

  update(piece: Uint8Array): void {
    this.#length += piece.length;
  }

  hex(): Promise<string> {
    return sha256(this.bytes.subarray(0, this.#length));
  }

  free(): void {}
}

function notKept(cause: unknown): EmuError {
  if (isFull(cause))
    return new EmuError("cache", "The browser's storage is full. Delete a pack of `Emu.cache.list()`, or free space.", { cause });
  const why = cause instanceof Error ? cause.message : String(cause);
  return new EmuError("cache", `The browser's storage cannot be used (${why}). Load the pack without it.`, { cause });
}
