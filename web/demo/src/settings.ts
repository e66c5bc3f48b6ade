/** The visitor's settings, their form, and their storage, which is used only on request. */

import type { ChatOptions, Scheduler, TextOptions } from "emu-webgpu";

import { $ } from "./dom.js";
import type { Context } from "./prompt.js";

/** Numeric options for text and for drawing. An empty field is omitted, which leaves the choice to the model. */
const WRITING = ["maxNewTokens", "temperature", "topP", "topK", "beams", "lengthPenalty", "repetitionPenalty", "noRepeatNgram"] as const;
const DRAWING = ["width", "height", "steps", "guidance", "previewEvery"] as const;
type NumberName = "seed" | (typeof WRITING)[number] | (typeof DRAWING)[number];

/** Default of steps between previews. */
const PREVIEW_EVERY = 2;

export interface Settings extends Partial<Record<NumberName, number>> {
  scheduler?: Scheduler;
  negative?: string;
  /** undefined: the default for the model. */
  context?: Context;
  /** Whether an answer in a chat may hold a picture. */
  drawInChat: boolean;
}

const STORAGE = "emu-demo";

/** Stored state: the settings and other choices of the page. */
export interface Remembered {
  settings: Settings;
  device: string;
  keep: boolean;
  mode: string;
}

/** Reads the stored state, if the visitor asked for it in an earlier visit. */
export function recall(): Partial<Remembered> {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(STORAGE) ?? "null");
    return found && typeof found === "object" ? found : {};
  } catch {
    // Storage that is disabled or holds something else counts as empty.
    return {};
  }
}

/** Stores the state, or deletes it if given null. Returns whether that was possible. */
export function remember(what: Remembered | null): boolean {
  try {
    if (what) localStorage.setItem(STORAGE, JSON.stringify(what));
    else localStorage.removeItem(STORAGE);
    return true;
  } catch {
    return false;
  }
}

/** A random seed. */
export const randomSeed = (): number => crypto.getRandomValues(new Uint32Array(1))[0] as number;

/** The options that are set: an option with the value undefined differs from one that is left out. */
function some<K extends keyof Settings>(settings: Settings, names: readonly K[]): Pick<Settings, K> {
  return Object.fromEntries(names.filter((name) => settings[name] !== undefined).map((name) => [name, settings[name]])) as Pick<Settings, K>;
}

/** Options for text. */
export const textOptions = (settings: Settings, seed: number): TextOptions => ({ ...some(settings, WRITING), seed });

/** Options for drawing. */
export const drawOptions = (settings: Settings): NonNullable<ChatOptions["draw"]> => ({ previewEvery: PREVIEW_EVERY, ...some(settings, [...DRAWING, "scheduler", "negative"]) });

/** Options for a chat. */
export const chatOptions = (settings: Settings, seed: number): ChatOptions => ({
  ...textOptions(settings, seed),
  ...(settings.drawInChat ? { draw: drawOptions(settings) } : { images: false }),
});

/** Binds the form in the panel. `changed` is called after every valid change. */
export class SettingsForm {
  private readonly form = $<HTMLFormElement>("settings");
  /** The last valid settings. */
  value: Settings = { drawInChat: true };

  constructor(start: Settings | undefined, changed: () => void) {
    if (start) this.show(start);
    this.read();
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => {
      this.read();
      changed();
    });
    this.form.addEventListener("reset", () => queueMicrotask(() => {
      this.read();
      changed();
    }));
  }

  private fields(): (HTMLInputElement | HTMLSelectElement)[] {
    return [...this.form.querySelectorAll<HTMLInputElement | HTMLSelectElement>("[name]")];
  }

  private show(settings: Settings): void {
    for (const field of this.fields()) {
      const value = settings[field.name as keyof Settings];
      if (isCheckbox(field)) field.checked = value !== false;
      else field.value = String(value ?? "");
    }
  }

  /** Reads the form. An invalid number keeps its last valid value, and its field shows the valid range. */
  private read(): void {
    const next: Record<string, unknown> = {};
    for (const field of this.fields()) {
      const { name, type } = field;
      const text = field.value.trim();
      const valid = field.checkValidity();
      if (isCheckbox(field)) next[name] = field.checked;
      else if (!valid) next[name] = this.value[name as keyof Settings];
      else if (text) next[name] = type === "number" ? Number(text) : text;
      if (type === "number") mark(field as HTMLInputElement, valid);
    }
    this.value = next as unknown as Settings;
  }

  /** Sets the seed of the following calls. */
  setSeed(seed: number): void {
    $<HTMLInputElement>("s-seed").value = String(seed);
    this.form.dispatchEvent(new Event("input"));
  }
}

const isCheckbox = (field: HTMLInputElement | HTMLSelectElement): field is HTMLInputElement => field.type === "checkbox";

/** Marks a number field as valid or invalid. */
function mark(field: HTMLInputElement, valid: boolean): void {
  field.setAttribute("aria-invalid", String(!valid));
  const { min, max, step } = field;
  $(`${field.id}-error`).textContent = valid ? "" : `Enter a ${step === "any" ? "" : "whole "}number from ${min} to ${max}.`;
}
