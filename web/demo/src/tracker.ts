/** Progress of the package, kept for display. */

import type { Component, Progress } from "emu-webgpu";

import { bytesOf, plural, seconds } from "./format.js";

export const COMPONENT_NAMES: Record<Component, string> = {
  vision: "Vision encoder",
  lm: "Language model",
  decoder: "Picture decoder",
  safety: "Safety checker",
};

/** Progress events except warnings. */
export type News = Exclude<Progress, { phase: "warning" }>;

interface Amount {
  loaded: number;
  total: number;
}

/** Progress of one component. */
export interface ComponentProgress {
  download?: Amount & { fetched: number };
  upload?: Amount;
}

export class Tracker {
  readonly components = new Map<Component, ComponentProgress>();
  /** Milliseconds by phase, in the order in which phases began; those of a component are keyed like `download vision`. The time
   * between two events counts for the phase of the later one. */
  readonly times = new Map<string, number>();
  readonly listeners = new Set<(progress: Progress) => void>();
  private last = 0;
  /** Latest event of a download in progress. */
  private download: News | null = null;
  /** Start of the download: time and bytes. */
  private began = { at: 0, loaded: 0 };

  /** Takes one event; meant to be passed as `onProgress`. */
  readonly take = (progress: Progress): void => {
    const now = performance.now();
    if (progress.phase === "warning") {
      for (const listener of this.listeners) listener(progress);
      return;
    }
    const key = "component" in progress ? `${progress.phase} ${progress.component}` : progress.phase;
    this.times.set(key, (this.times.get(key) ?? 0) + now - this.last);
    this.last = now;
    if (progress.phase === "download" || progress.phase === "upload") {
      const known = this.components.get(progress.component) ?? {};
      this.components.set(progress.component, { ...known, [progress.phase]: progress });
    }
    if (progress.phase === "download") {
      if (!this.download) this.began = { at: now, loaded: progress.loadedAll };
      this.download = progress.loadedAll < progress.totalAll ? progress : null;
    }
    for (const listener of this.listeners) listener(progress);
  };

  /** Resets the phase times for a new call. */
  begin(): void {
    for (const phase of ["prefill", "decode", "denoise", "decode-image"]) this.times.delete(phase);
    this.download = null;
    this.last = performance.now();
  }

  /** Resets everything for another model. */
  clear(): void {
    this.components.clear();
    this.times.clear();
    this.download = null;
    this.last = performance.now();
  }

  /** An event as text, and the fraction of its phase that is done (0 to 1; undefined: unknown). A download is shown until its
   * end, even if other work runs beside it: a bar that jumps between two tasks is useless. */
  describe(news: News): { text: string; detail: string; fraction?: number } {
    const progress = this.download ?? news;
    const share = (part: number, whole: number) => part / Math.max(1, whole);
    switch (progress.phase) {
      case "download": {
        const { loadedAll, totalAll } = progress;
        const { at, loaded } = this.began;
        const time = (performance.now() - at) / 1000;
        // An estimate needs some data.
        const left = time > 0.5 ? ((totalAll - loadedAll) * time) / (loadedAll - loaded) : 0;
        const guess = left >= 1 && left < 1e6 ? `, about ${seconds(left)} left` : "";
        const fetched = [...this.components.values()].some(({ download }) => download?.fetched);
        return { text: fetched ? "Downloading the model" : "Loading the model from this device", detail: bytesOf(loadedAll, totalAll) + guess, fraction: share(loadedAll, totalAll) };
      }
      case "upload": {
        const { component, loaded, total } = progress;
        return { text: `Loading the ${COMPONENT_NAMES[component].toLowerCase()} into memory`, detail: bytesOf(loaded, total), fraction: share(loaded, total) };
      }
      case "compile":
        return { text: "Preparing the device", detail: `${progress.done} of ${progress.total}`, fraction: share(progress.done, progress.total) };
      case "prefill":
      case "decode":
        return { text: progress.phase === "prefill" ? "Reading" : "Writing", detail: plural(progress.tokens, "token") };
      case "denoise":
        return { text: "Drawing", detail: `step ${progress.step} of ${progress.steps}`, fraction: share(progress.step, progress.steps) };
      case "decode-image":
        return { text: "Finishing the picture", detail: "" };
    }
  }
}
