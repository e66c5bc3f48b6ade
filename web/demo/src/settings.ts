/** What the visitor set, the form that shows it, and the storage that keeps it only where that was asked for. */

import type { ChatOptions, Scheduler, TextOptions } from "emu-webgpu";

import { $ } from "./dom.js";
import type { Context } from "./prompt.js";

/** Numbers for writing and for drawing. Any may be left to the model: an empty field is no entry. */
const WRITING = ["maxNewTokens", "temperature", "topP", "topK", "beams", "lengthPenalty", "repetitionPenalty", "noRepeatNgram"] as const;
const DRAWING = ["width", "height", "steps", "guidance", "previewEvery"] as const;
type NumberName = "seed" | (typeof WRITING)[number] | (typeof DRAWING)[number];

/** Steps between previews, where nothing else was set. */
const PREVIEW_EVERY = 2;

export interface Settings extends Partial<Record<NumberName, number>> {
  scheduler?: Scheduler;
  negative?: string;
  /** undefined: what fits the model. */
  context?: Context;
  /** Whether an answer in a chat may hold a picture. */
  drawInChat: boolean;
}

const STORAGE = "emu-demo";

/** What else of the page is remembered together with the settings. */
export interface Remembered {
  settings: Settings;
  device: string;
  keep: boolean;
  mode: string;
}

/** What an earlier visit left, if the visitor asked for it then. */
export function recall(): Partial<Remembered> {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(STORAGE) ?? "null");
    return found && typeof found === "object" ? found : {};
  } catch {
    // Storage that is switched off or holds something else is as good as none.
    return {};
  }
}

/** Keeps, or forgets when given null. Tells whether that was possible. */
export function remember(what: Remembered | null): boolean {
  try {
    if (what) localStorage.setItem(STORAGE, JSON.stringify(what));
    else localStorage.removeItem(STORAGE);
    return true;
  } catch {
    return false;
  }
}

/** A seed nobody chose. */
export const randomSeed = (): number => crypto.getRandomValues(new Uint32Array(1))[0] as number;

/** The entries that are there: an option that is there and undefined is not the same as one left out. */
function some<K extends keyof Settings>(settings: Settings, names: readonly K[]): Pick<Settings, K> {
  return Object.fromEntries(names.filter((name) => settings[name] !== undefined).map((name) => [name, settings[name]])) as Pick<Settings, K>;
}

/** How text is written. */
export const textOptions = (settings: Settings, seed: number): TextOptions => ({ ...some(settings, WRITING), seed });

/** How pictures are drawn. */
export const drawOptions = (settings: Settings): NonNullable<ChatOptions["draw"]> => ({ previewEvery: PREVIEW_EVERY, ...some(settings, [...DRAWING, "scheduler", "negative"]) });

/** How a chat answers. */
export const chatOptions = (settings: Settings, seed: number): ChatOptions => ({
  ...textOptions(settings, seed),
  ...(settings.drawInChat ? { draw: drawOptions(settings) } : { images: false }),
});

/** Binds the form in the panel. `changed` is called after every change that holds. */
export class SettingsForm {
  private readonly form = $<HTMLFormElement>("settings");
  /** The last settings that held. */
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

  /** Takes what is in the form. A number that does not hold keeps its last value, and its field says what would. */
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

  /** Makes a seed the one of what comes next. */
  setSeed(seed: number): void {
    $<HTMLInputElement>("s-seed").value = String(seed);
    this.form.dispatchEvent(new Event("input"));
  }
}

const isCheckbox = (field: HTMLInputElement | HTMLSelectElement): field is HTMLInputElement => field.type === "checkbox";

/** Says at a number's field whether it holds. */
function mark(field: HTMLInputElement, valid: boolean): void {
  field.setAttribute("aria-invalid", String(!valid));
  const { min, max, step } = field;
  $(`${field.id}-error`).textContent = valid ? "" : `Enter a ${step === "any" ? "" : "whole "}number from ${min} to ${max}.`;
}
