/** What the package says of its progress, kept for whoever shows it. */

import type { Component, Progress } from "emu-webgpu";

import { bytesOf, plural, seconds } from "./format.js";

export const COMPONENT_NAMES: Record<Component, string> = {
  vision: "Vision encoder",
  lm: "Language model",
  decoder: "Picture decoder",
  safety: "Safety checker",
};

/** Progress, warnings aside. */
export type News = Exclude<Progress, { phase: "warning" }>;

interface Amount {
  loaded: number;
  total: number;
}

/** How far one component has come. */
export interface ComponentProgress {
  download?: Amount & { fetched: number };
  upload?: Amount;
}

export class Tracker {
  readonly components = new Map<Component, ComponentProgress>();
  /** Milliseconds by phase, in the order the phases began; those of a component as `download vision`. What passes between two pieces of news is the time
   * of the phase that the later one tells of. */
  readonly times = new Map<string, number>();
  readonly listeners = new Set<(progress: Progress) => void>();
  private last = 0;
  /** The latest news of a download that goes on. */
  private download: News | null = null;
  /** When it began, and how many bytes there were then. */
  private began = { at: 0, loaded: 0 };

  /** Takes one piece of news; meant to be handed over as `onProgress`. */
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

  /** A call begins: its phases are timed anew. */
  begin(): void {
    for (const phase of ["prefill", "decode", "denoise", "decode-image"]) this.times.delete(phase);
    this.download = null;
    this.last = performance.now();
  }

  /** Another model is loaded: forgets everything. */
  clear(): void {
    this.components.clear();
    this.times.clear();
    this.download = null;
    this.last = performance.now();
  }

  /** News as a sentence, and how much of its phase is done (0 to 1; undefined: nobody knows). A download is told of until its end, whatever is done beside
   * it: a bar that jumps between two works says nothing. */
  describe(news: News): { text: string; detail: string; fraction?: number } {
    const progress = this.download ?? news;
    const share = (part: number, whole: number) => part / Math.max(1, whole);
    switch (progress.phase) {
      case "download": {
        const { loadedAll, totalAll } = progress;
        const { at, loaded } = this.began;
        const time = (performance.now() - at) / 1000;
        // A guess needs something to go by.
        const left = time > 0.5 ? ((totalAll - loadedAll) * time) / (loadedAll - loaded) : 0;
        const guess = left >= 1 && left < 1e6 ? `, about ${seconds(left)} left` : "";
        const fetched = [...this.components.values()].some(({ download }) => download?.fetched);
        return { text: fetched ? "Downloading the model" : "Reading the model from this device", detail: bytesOf(loadedAll, totalAll) + guess, fraction: share(loadedAll, totalAll) };
      }
      case "upload": {
        const { component, loaded, total } = progress;
        return { text: `Putting the ${COMPONENT_NAMES[component].toLowerCase()} into memory`, detail: bytesOf(loaded, total), fraction: share(loaded, total) };
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
