/** The message box: text, attached pictures, the pictures a question is about, and the ways to attach them. */

import { announce } from "./announce.js";
import { hasCamera, takePicture } from "./camera.js";
import { $, button, h, icon, iconButton, picture } from "./dom.js";
import { told } from "./errors.js";
import { plural } from "./format.js";
import { forget, isMedia, takeIn } from "./media.js";
import type { Attachment } from "./prompt.js";
import type { Mode } from "./turn.js";

export interface Draft {
  mode: Mode;
  text: string;
  attachments: Attachment[];
  about: Attachment[];
}

const PLACEHOLDERS: Record<Mode, [empty: string, withPictures: string]> = {
  chat: ["Ask, or attach a picture", "Ask about it, or send it to be described"],
  draw: ["Describe what to draw", "Describe what to draw from these pictures, or send them to blend them"],
};

export class Composer {
  private readonly form = $<HTMLFormElement>("composer");
  private readonly prompt = $<HTMLTextAreaElement>("prompt");
  private readonly tray = $("tray");
  private readonly problem = $("composer-problem");
  private readonly send = $<HTMLButtonElement>("send");
  private readonly halt = $<HTMLButtonElement>("stop");
  private attachments: Attachment[] = [];
  /** Pictures of earlier turns that the next question is about. */
  private about: Attachment[] = [];
  private reading = 0;
  private busy = false;

  constructor(
    /** Sends a draft. Returns why it cannot be sent, or null if it was. */
    private readonly onSend: (draft: Draft) => string | null,
    onStop: () => void,
    private readonly onMode: () => void,
  ) {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.halt.addEventListener("click", onStop);
    this.prompt.addEventListener("input", () => this.typed());
    this.prompt.addEventListener("keydown", (event) => {
      // Enter that ends an IME composition belongs to the input method.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    for (const radio of this.form.querySelectorAll<HTMLInputElement>("input[name=mode]")) radio.addEventListener("change", () => {
      this.update();
      this.onMode();
    });
    this.ways();
    this.update();
  }

  /** Binds the ways to attach: file, camera, paste, drop. */
  private ways(): void {
    const file = $<HTMLInputElement>("file");
    $("attach").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      void this.add([...(file.files ?? [])]);
      file.value = "";
    });
    const camera = $("camera-open");
    camera.hidden = !hasCamera();
    camera.addEventListener("click", () => void takePicture().then(
      (blob) => blob && this.add([new File([blob], "Camera picture", { type: blob.type })]),
      (error) => this.complain(told(error)),
    ));
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])].filter(isMedia);
      if (!files.length) return;
      event.preventDefault();
      void this.add(files);
    });
    const overlay = $("drop");
    document.addEventListener("dragover", (event) => {
      // Text dragged within the box is not handled here.
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      overlay.hidden = false;
    });
    document.addEventListener("dragleave", (event) => {
      // Without a related target, the pointer has left the window.
      if (!event.relatedTarget) overlay.hidden = true;
    });
    document.addEventListener("drop", (event) => {
      overlay.hidden = true;
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      void this.add([...event.dataTransfer.files]);
    });
  }

  get mode(): Mode {
    return (this.form.elements.namedItem("mode") as RadioNodeList).value as Mode;
  }

  set mode(mode: Mode) {
    (this.form.elements.namedItem("mode") as RadioNodeList).value = mode;
    this.update();
  }

  /** Enables Draw mode if the pack can draw at all. */
  allowDrawing(can: boolean): void {
    const radio = this.form.querySelector<HTMLInputElement>("input[value=draw]");
    if (radio) radio.disabled = !can;
    $("mode-draw").title = can ? "" : "This model does not draw";
    if (!can && this.mode === "draw") this.mode = "chat";
  }

  /** Attaches files, one after the other so that they keep their order. */
  async add(files: File[]): Promise<void> {
    this.complain("");
    for (const file of files) {
      this.reading += 1;
      this.update();
      try {
        const one = await takeIn(file, file.name);
        this.attachments.push(one);
        announce(`${one.name} attached.`);
      } catch (error) {
        this.complain(told(error));
      } finally {
        this.reading -= 1;
        this.update();
      }
    }
  }

  /** Attaches a picture that the page already has. */
  attach(one: Attachment): void {
    this.attachments.push({ ...one, url: URL.createObjectURL(one.blobs[0] as Blob) });
    announce(`${one.name} attached.`);
    this.update();
    this.prompt.focus();
  }

  /** Sets the pictures that a question without pictures is about. */
  setAbout(about: Attachment[]): void {
    this.about = about;
    this.update();
  }

  setBusy(busy: boolean): void {
    const focused = document.activeElement;
    this.busy = busy;
    this.send.hidden = busy;
    this.halt.hidden = !busy;
    // A button that is hidden must pass the focus on.
    if (focused === this.send) this.halt.focus();
    else if (focused === this.halt) this.send.focus();
    this.update();
  }

  /** Shows what is wrong with the draft. */
  private complain(problem: string): void {
    this.problem.textContent = problem;
    this.problem.hidden = !problem;
  }

  private submit(): void {
    if (this.busy || this.send.disabled) return;
    const text = this.prompt.value.trim();
    const refusal = this.onSend({ mode: this.mode, text, attachments: this.attachments, about: this.shownAbout() });
    this.complain(refusal ?? "");
    if (refusal !== null) return;
    this.attachments = [];
    this.prompt.value = "";
    this.update();
  }

  private shownAbout(): Attachment[] {
    return this.mode === "chat" && !this.attachments.length && !this.reading ? this.about : [];
  }

  private tile(one: Attachment): HTMLElement {
    const remove = iconButton("close", `Remove ${one.name}`, () => {
      this.attachments = this.attachments.filter((other) => other !== one);
      forget(one);
      announce(`${one.name} removed.`);
      this.update();
      this.prompt.focus();
    });
    remove.classList.add("remove");
    const frames = one.kind === "video" && h("span", { class: "badge" }, icon("video"), plural(one.blobs.length, "frame"));
    return h("li", { class: "tile" }, picture(one.url, one.name, one.width), frames, remove);
  }

  /** Inserts a mark at the cursor, which places the next picture there. */
  private mark(): void {
    const { prompt } = this;
    const kind = this.attachments.every((one) => one.kind === "video") ? "video" : "image";
    prompt.setRangeText(`<${kind}>`, prompt.selectionStart, prompt.selectionEnd, "end");
    prompt.focus();
    this.update();
  }

  private update(): void {
    const about = this.shownAbout();
    const tiles: Node[] = this.attachments.map((one) => this.tile(one));
    if (this.reading) tiles.push(h("li", { class: "tile waiting" }, h("span", { class: "spinner" }), h("span", { class: "visually-hidden" }, "Reading the file")));
    if (this.attachments.length > 1) tiles.push(h("li", { class: "mark" }, button(null, "Place in text", () => this.mark()), h("span", { class: "hint" }, "Pictures come before the text, unless marks in the text place them.")));
    if (about.length) {
      const drop = iconButton("close", "Ask without this picture", () => {
        this.setAbout([]);
        this.prompt.focus();
      });
      tiles.push(h("li", { class: "about" }, h("span", {}, "About"), ...about.map((one) => picture(one.url, one.name, one.width)), drop));
    }
    this.tray.replaceChildren(...tiles);
    this.tray.hidden = tiles.length === 0;
    const [empty, withPictures] = PLACEHOLDERS[this.mode];
    this.prompt.placeholder = this.attachments.length ? withPictures : about.length ? "Ask about the picture" : empty;
    this.typed();
  }

  /** Updates what depends on the text in the box only. */
  private typed(): void {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${this.prompt.scrollHeight}px`;
    this.send.disabled = this.reading > 0 || (!this.prompt.value.trim() && !this.attachments.length);
  }
}
