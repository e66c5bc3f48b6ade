/** Loads components of a pack into the engine, two shards at a time. Each shard is verified, stored, uploaded and dropped. */

import { obtain, type Source } from "./download.js";
import { throwIfAborted } from "./errors.js";
import { COMPONENTS, type FileEntry, type Manifest, TOKENIZER } from "./manifest.js";
import { keyOf, PACK_FILE, type PackFile, storedName } from "./store.js";
import { onAbort, turn } from "./turn.js";
import type { Component, Progress } from "./types.js";
import type { Engine } from "./wasm.js";

/** Shards in memory at once: one downloads while the other is uploaded. */
const LANES = 2;
/** Minimum milliseconds between two progress reports of a component. */
const REPORT_EVERY = 100;

export type Report = (progress: Progress) => void;
type Uploads = Pick<Engine, "shard" | "finish" | "unload" | "loaded">;

/** A shard and the component it belongs to. */
interface Task {
  component: Component;
  entry: FileEntry;
}

export class Loader {
  readonly #manifest: Manifest;
  readonly #source: Source;

  constructor(manifest: Manifest, source: Source) {
    [this.#manifest, this.#source] = [manifest, source];
  }

  /** Loads the components that the pack has and the engine lacks. Fetches no other component. */
  async load(components: readonly Component[], engine: Uploads, signal: AbortSignal, report: Report): Promise<void> {
    const wanted = COMPONENTS.filter(
      (name) => components.includes(name) && this.#manifest.components[name] && !engine.loaded(name),
    );
    if (wanted.length === 0) return;
    const shards = new Map(this.#manifest.shards.map((entry) => [entry.file, entry]));
    const tasks: Task[] = wanted.flatMap((component) =>
      this.#manifest.components[component]!.shards.map((file) => ({ component, entry: shards.get(file)! })),
    );
    const tally = new Tally(tasks, report);
    // The first failure stops the other lane too. Both have closed their files before the error is thrown.
    const stop = new AbortController();
    const unlisten = onAbort(signal, () => stop.abort());
    const lane = async () => {
      try {
        for (let task = tasks.shift(); task; task = tasks.shift()) await this.#bring(task, engine, stop.signal, tally);
      } catch (error) {
        stop.abort();
        throw error;
      }
    };
    try {
      const ends = await Promise.allSettled(Array.from({ length: LANES }, lane));
      throwIfAborted(signal);
      const reasons = ends.flatMap((end) => (end.status === "rejected" ? [end.reason] : []));
      // An abort among the reasons is a consequence of the other failure.
      if (reasons.length) throw reasons.find((reason) => reason?.name !== "AbortError") ?? reasons[0];
    } catch (error) {
      unload(wanted, engine);
      throw error;
    } finally {
      unlisten();
    }
  }

  /** The bytes of the tokenizer. */
  async tokenizer(signal: AbortSignal): Promise<Uint8Array> {
    // A manifest without a tokenizer was rejected.
    const entry = this.#manifest.files.find(({ file }) => file === TOKENIZER)!;
    return obtain(this.#source, entry, signal, () => {});
  }

  /** Stores the manifest and the pack's URL for offline use, and deletes files of older versions of the pack. */
  async keepManifest(text: string, signal: AbortSignal): Promise<void> {
    const {
      store,
      pack: { url },
    } = this.#source;
    const note = JSON.stringify({ url: keyOf(url), manifest: text } satisfies PackFile);
    const known = new Set([PACK_FILE, ...[...this.#manifest.shards, ...this.#manifest.files].map(storedName)]);
    try {
      await store.exclusive(PACK_FILE, signal, async () => {
        if ((await store.readText(PACK_FILE)) !== note) await store.writeText(PACK_FILE, note);
        for (const name of (await store.sizes()).keys()) {
          // A file that another tab has open is deleted on a later load.
          if (!known.has(name.replace(/\.part$/, ""))) await store.remove(name).catch(() => {});
        }
      });
    } catch (error) {
      throwIfAborted(signal);
      this.#source.onStoreFailure(error);
    }
  }

  async #bring({ component, entry }: Task, engine: Uploads, signal: AbortSignal, tally: Tally): Promise<void> {
    const bytes = await obtain(this.#source, entry, signal, (loaded, fetched) => tally.add(component, loaded, fetched));
    throwIfAborted(signal);
    engine.shard(entry.file, bytes);
    await turn();
    if (tally.uploaded(component, entry.bytes)) await engine.finish(component);
  }
}

/** Unloads components that are incomplete. */
function unload(components: readonly Component[], engine: Uploads): void {
  for (const component of components) {
    try {
      if (!engine.loaded(component)) engine.unload(component);
    } catch {
      // The original error is the one to report; the other components must still be unloaded.
    }
  }
}

/** Counts bytes and reports them. */
class Tally {
  readonly #parts = new Map<
    Component,
    { total: number; loaded: number; fetched: number; uploaded: number; shards: number; told: number }
  >();
  readonly #total: number;

  constructor(
    tasks: readonly Task[],
    private readonly report: Report,
  ) {
    for (const { component, entry } of tasks) {
      const part = this.#parts.get(component) ?? { total: 0, loaded: 0, fetched: 0, uploaded: 0, shards: 0, told: 0 };
      part.total += entry.bytes;
      part.shards += 1;
      this.#parts.set(component, part);
    }
    this.#total = this.#sum("total");
  }

  add(component: Component, loaded: number, fetched: number): void {
    const part = this.#parts.get(component)!;
    part.loaded += loaded;
    part.fetched += fetched;
    const now = performance.now();
    if (part.loaded < part.total && now - part.told < REPORT_EVERY) return;
    part.told = now;
    const { loaded: here, total, fetched: came } = part;
    this.report({
      phase: "download",
      component,
      loaded: here,
      total,
      fetched: came,
      loadedAll: this.#sum("loaded"),
      totalAll: this.#total,
    });
  }

  /** Counts an uploaded shard. Returns whether it was the component's last. */
  uploaded(component: Component, bytes: number): boolean {
    const part = this.#parts.get(component)!;
    part.uploaded += bytes;
    part.shards -= 1;
    this.report({ phase: "upload", component, loaded: part.uploaded, total: part.total });
    return part.shards === 0;
  }

  #sum(field: "total" | "loaded"): number {
    let sum = 0;
    for (const part of this.#parts.values()) sum += part[field];
    return sum;
  }
}
