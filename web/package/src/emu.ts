/** The public API in a page. */

import { findAdapter, freeStorage, hasSimd, machineMemory } from "./adapter.js";
import { admit, refusal, requireSupport } from "./admission.js";
import { type Admission, Client } from "./client.js";
import { base, fetchPack, packAddress } from "./pack.js";
import { drawInPage } from "./pictures.js";
import type { PrefetchOptions } from "./prefetch.js";
import { Session, toProgress } from "./session.js";
import { addressOf, workers } from "./start.js";
import { deleteCache, listCache, openStorage, persist } from "./storage.js";
import { cachedBytes, type Store } from "./store.js";
import type { CachedModel, DeviceChoice, Expected, LoadOptions, PackLocation, Support } from "./types.js";

/** Options of {@link Emu.checkSupport}. */
export interface SupportOptions {
  signal?: AbortSignal;
  device?: DeviceChoice;
  /** Upper bounds of later calls. */
  expect?: Expected;
}

/** A model in a page. All work runs in a worker. Calls run one at a time, in the order in which they were made. */
export class Emu extends Session {
  private constructor(client: Client) {
    super(client);
  }

  /**
   * Reports whether and how this machine can run a pack. Fetches `emu.json` and nothing else.
   *
   * @throws {EmuError} `bad-request`, `not-found`, `fetch`, `bad-manifest`, `unknown-format` or `bad-name`.
   * @throws {DOMException} `AbortError` when `options.signal` fires.
   */
  static async checkSupport(pack: PackLocation, options: SupportOptions = {}): Promise<Support> {
    return (await look(pack, options, true)).support;
  }

  /**
   * Loads a pack: a folder on any static server, or the URLs of its files.
   *
   * @throws {EmuError} `no-webgpu` or `unsupported` before anything large is fetched; later a code of downloads or the device.
   * @throws {DOMException} `AbortError` when `options.signal` fires.
   */
  static async load(pack: PackLocation, options: LoadOptions = {}): Promise<Emu> {
    const { signal, onProgress, device = "auto", components = ["vision", "lm"], cache = "opfs" } = options;
    const kept = cache === "opfs";
    const { expect } = options;
    if (kept && options.persist) void persist(onProgress);
    const admission = await look(pack, { signal, device, expect }, kept);
    requireSupport(admission.support, device);
    const client = new Client(admission, {
      components,
      cache: kept,
      startWorker: workers(options.worker, base()),
      wasm: (kind) => addressOf(options.wasm, kind, `${kind}/emu_web_bg.wasm`, base()),
      draw: drawInPage,
      device,
      admit: (choice) => look(pack, { device: choice, expect }, kept),
    });
    const onEvent = (event: Parameters<typeof toProgress>[0]) => {
      const progress = toProgress(event);
      if (progress) onProgress?.(progress);
    };
    await client.open({ signal, onEvent });
    return new Emu(client);
  }

  /**
   * Downloads a pack into the cache, verified, for a later `load`, without a worker. An interrupted download is resumed. In a
   * service worker use `prefetch` of `emu-webgpu/prefetch`, since `import()` is forbidden there.
   *
   * @throws {EmuError} `cache` if it cannot be kept; a code of downloads.
   * @throws {DOMException} `AbortError` when `options.signal` fires; what was fetched is kept.
   */
  static async prefetch(pack: PackLocation, options: PrefetchOptions = {}): Promise<void> {
    // Few pages need it, so it is fetched on demand.
    const { prefetch } = await import("./prefetch.js");
    await prefetch(pack, options);
  }

  /** The packs that this origin has cached. */
  static readonly cache = {
    list: (): Promise<CachedModel[]> => listCache(),
    /** Deletes a pack from the cache. @throws {EmuError} `cache` while a page has its files open. */
    delete: (pack: PackLocation): Promise<void> => deleteCache(packAddress(pack, base()).url),
  };
}

async function look(
  given: PackLocation,
  { signal, device = "auto", expect }: SupportOptions,
  cache: boolean,
): Promise<Admission> {
  const address = packAddress(given, base());
  let store: Store | null = null;
  if (cache) store = await openStorage(address.url, false).catch(() => null);
  const { text, manifest } = await fetchPack(address, store, fetch, signal);
  const [adapter, storage, cached] = await Promise.all([
    findAdapter(),
    cache ? freeStorage() : null,
    cachedBytes(store, manifest.shards),
  ]);
  const machine = { adapter, storage, simd: hasSimd(), memory: machineMemory() };
  const support = admit(manifest, machine, device, cached, expect);
  const refuses: Admission["refuses"] = (task, expected) => refusal(manifest, support, task, expected);
  return { pack: address, manifest: text, support, refuses };
}
