/** The model of the page: its support report, and the one loaded instance. */

import { Emu, type Component, type ComponentPlan, type DeviceChoice, type DeviceInfo, type MemoryInfo, type Support } from "emu-webgpu";

import { Tracker } from "./tracker.js";

export type State = "checking" | "unreachable" | "unsupported" | "idle" | "loading" | "ready";

/** Components that `Emu.load` loads. The decoder follows when a call first needs it. */
const FIRST: readonly Component[] = ["vision", "lm"];

/** URL of a script of this page that imports the package's worker. A worker started through it inherits the page's content
 * security policy with all additions; a worker started from its own URL has the policy of that response. */
const bound = (name: string): string => {
  const script = JSON.stringify(new URL(`emu-webgpu/dist/${name}.js`, document.baseURI).href);
  return URL.createObjectURL(new Blob([`import ${script};`], { type: "text/javascript" }));
};
const WORKERS = { cpu: bound("worker-cpu"), webgpu: bound("worker-webgpu") };

/** Rejects when the signal fires. */
const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
  });

export class Session {
  state: State = "checking";
  support: Support | null = null;
  /** Why the manifest could not be read. */
  problem: unknown = null;
  readonly tracker = new Tracker();
  readonly listeners = new Set<() => void>();
  private emu: Emu | null = null;
  private loading: Promise<Emu> | null = null;

  /** The pack's address; empty until it is known. */
  url = "";

  constructor(
    private readonly locate: () => Promise<string>,
    public device: DeviceChoice,
    /** Whether the browser stores the weights for the next visit. */
    public keep: boolean,
  ) {}

  private become(state: State): void {
    this.state = state;
    this.changed();
  }

  /** Notifies all listeners. */
  changed(): void {
    for (const listener of this.listeners) listener();
  }

  private async address(): Promise<string> {
    return (this.url ||= await this.locate());
  }

  /** Fetches only the manifest, and checks it against this machine. */
  async check(): Promise<void> {
    this.become("checking");
    try {
      this.support = await Emu.checkSupport(await this.address(), { device: this.device });
      this.problem = null;
      this.become(this.emu ? "ready" : this.support.supported ? "idle" : "unsupported");
    } catch (error) {
      this.problem = error;
      this.become("unreachable");
    }
  }

  /** Bytes to download before the model can chat, or draw. */
  missing(mode: "chat" | "draw"): number {
    const components = mode === "chat" ? FIRST : (this.support?.tasks.find(({ task }) => task === "draw")?.components ?? []);
    let sum = 0;
    for (const entry of this.support?.plan ?? []) {
      if (components.includes(entry.component)) sum += Math.max(0, entry.download - this.here(entry));
    }
    return sum;
  }

  /** Bytes of a component that are already on this device. */
  here({ component, cached }: ComponentPlan): number {
    return Math.max(cached, this.tracker.components.get(component)?.download?.loaded ?? 0);
  }

  /** The loaded model. The first call loads it; calls in the meantime wait for that load, which only the first call's signal
   * aborts. */
  async ready(signal: AbortSignal): Promise<Emu> {
    if (this.emu) return this.emu;
    this.loading ??= this.load(signal);
    return Promise.race([this.loading, aborted(signal)]);
  }

  private async load(signal: AbortSignal): Promise<Emu> {
    this.tracker.clear();
    this.become("loading");
    try {
      this.emu = await Emu.load(await this.address(), { worker: WORKERS, device: this.device, components: [...FIRST], cache: this.keep ? "opfs" : "none", signal, onProgress: this.tracker.take });
      this.support = this.emu.support;
      this.become("ready");
      return this.emu;
    } catch (error) {
      // Only a new check knows what is in the cache now.
      this.tracker.clear();
      void this.check();
      throw error;
    } finally {
      this.loading = null;
    }
  }

  /** The device in use; null while nothing is loaded. */
  get used(): DeviceInfo | null {
    return this.emu?.device ?? null;
  }

  /** Memory in use; null while nothing is loaded. */
  async memory(): Promise<MemoryInfo | null> {
    return (await this.emu?.memory()) ?? null;
  }

  /** Aborts all calls, so that a new conversation can start. */
  async reset(): Promise<void> {
    await this.emu?.reset();
  }

  /** Disposes of the loaded model; the next call loads it with the current settings. */
  async release(): Promise<void> {
    const emu = this.emu;
    this.emu = null;
    this.tracker.clear();
    await emu?.dispose().catch(() => undefined);
    await this.check();
  }
}
