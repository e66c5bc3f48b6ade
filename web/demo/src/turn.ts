/** One exchange of the conversation on the page: the request, and the answer as it streams in. */

import type { Progress } from "emu-webgpu";

import { announce, announceStream, announceStreamEnd } from "./announce.js";
import { button, h, icon, iconButton, picture, rendering } from "./dom.js";
import type { Explained } from "./errors.js";
import { plural } from "./format.js";
import { copyText, pictureFigure, shownWidth, type PictureActions } from "./picture.js";
import { attachmentsOf, textOf, type Attachment, type Exchange, type Piece } from "./prompt.js";
import type { Tracker } from "./tracker.js";

export type Mode = "chat" | "draw";

/** Everything needed to ask, and to ask again. */
export interface Turn extends Exchange {
  mode: Mode;
  /** Earlier pictures that the question is about. */
  about: Attachment[];
  seed: number;
}

function thumbnail(one: Attachment): HTMLElement {
  const image = picture(one.url, one.name, one.width);
  return one.kind === "image" ? image : h("span", { class: "video" }, image, h("span", { class: "badge" }, icon("video"), plural(one.blobs.length, "frame")));
}

/** A message as it reads: leading pictures in a row, marked ones each with the text that follows. */
function asked(pieces: readonly Piece[]): HTMLElement {
  const pictures = h("div", { class: "pictures" });
  const bubble = h("div", { class: "bubble" });
  let item: HTMLElement | null = null;
  let series = false;
  for (const [index, piece] of pieces.entries()) {
    if (typeof piece !== "string") {
      // A picture after text: each has its place in a series.
      series ||= pieces.slice(0, index).some((before) => typeof before === "string");
      pictures.append((item = h("figure", {}, thumbnail(piece))));
    } else if (!piece.trim()) continue;
    else if (item && pieces.slice(index).some((after) => typeof after !== "string")) item.append(h("figcaption", {}, piece.trim()));
    else bubble.append(h("p", {}, piece.trim()));
  }
  if (series) {
    pictures.classList.add("series");
    // A series ends where the model has to continue.
    if (typeof pieces.at(-1) !== "string") item?.append(h("figcaption", { class: "open" }, "…"));
  }
  if (item) bubble.prepend(pictures);
  return bubble;
}

const SILENT = "The model ended its answer without a word. Rephrase the question, or switch to Draw if you wanted a picture.";

export class TurnView {
  readonly element: HTMLElement;
  private readonly answer = h("div", { class: "answer" });
  private readonly statusText = h("span", { class: "status-text" });
  private readonly statusDetail = h("span", { class: "status-detail" });
  private readonly bar = h("progress", { max: 1, "aria-label": "Progress" });
  private readonly status = h("div", { class: "status" }, h("div", { class: "status-line" }, h("span", { class: "spinner" }), this.statusText, this.statusDetail), this.bar);
  private paragraph: HTMLElement | null = null;
  private canvas: HTMLElement | null = null;
  private said = "";
  /** Denoising steps of the latest picture; 0 while nothing was drawn. */
  steps = 0;

  constructor(
    readonly turn: Turn,
    name: string,
    private readonly tracker: Tracker,
    private readonly actions: PictureActions & { retry: () => void },
  ) {
    const { about } = turn;
    this.element = h(
      "article",
      { class: "turn", "aria-label": `${turn.mode === "draw" ? "Drawing" : "Question"}: ${textOf(turn.asked) || "pictures"}` },
      h(
        "div",
        { class: "asked" },
        h("h2", { class: "visually-hidden" }, "You"),
        turn.mode === "draw" && h("span", { class: "tag" }, icon("draw"), "Draw"),
        asked(turn.asked),
        about.length > 0 && h("div", { class: "about" }, h("span", {}, "about"), ...about.map(thumbnail)),
      ),
      h("div", { class: "answered" }, h("h2", { class: "visually-hidden" }, name), h("span", { class: "avatar" }, icon("emu")), this.answer),
    );
  }

  /** Clears the answer and shows that one is in progress. */
  begin(): void {
    this.turn.answered = [];
    this.said = "";
    this.paragraph = this.canvas = null;
    this.answer.replaceChildren(this.status);
    this.answer.setAttribute("aria-busy", "true");
    this.show("Starting", "");
  }

  /** Adds an element to the answer, before the status. */
  private put(element: HTMLElement): HTMLElement {
    this.status.before(element);
    return element;
  }

  private show(text: string, detail: string, fraction?: number): void {
    if (this.statusText.textContent !== text && !/^(Reading|Writing)$/.test(text)) announce(`${text}.`);
    this.statusText.textContent = text;
    this.statusDetail.textContent = detail;
    this.bar.hidden = fraction === undefined;
    if (fraction !== undefined) this.bar.value = fraction;
  }

  progress(progress: Progress): void {
    if (progress.phase === "warning") {
      this.put(h("p", { class: "note" }, progress.message));
      return announce(progress.message);
    }
    const { text, detail, fraction } = this.tracker.describe(progress);
    this.show(text, detail, fraction);
    if (progress.phase === "denoise") {
      this.steps = progress.steps;
      this.preview(progress.preview);
    }
  }

  /** Shows the preview of an unfinished picture. */
  private preview(image?: ImageData): void {
    this.canvas ??= this.put(h("div", { class: "preview" }));
    if (!image) return;
    const { width, height } = image;
    const canvas = this.canvas.querySelector("canvas") ?? this.canvas.appendChild(h("canvas", { role: "img", "aria-label": "Preview of the drawing" }));
    canvas.width = width;
    canvas.height = height;
    canvas.className = rendering(width);
    canvas.style.width = `${shownWidth(width)}px`;
    canvas.getContext("2d")?.putImageData(image, 0, 0);
  }

  /** Adds text. */
  text(chunk: string): void {
    const start = this.paragraph === null;
    const text = start ? chunk.trimStart() : chunk;
    if (!text) return;
    this.paragraph ??= this.put(h("p", { class: "said" }));
    this.paragraph.append(text);
    const last = this.turn.answered.at(-1);
    if (typeof last === "string") this.turn.answered.splice(-1, 1, last + text);
    else this.turn.answered.push(text);
    this.said += text;
    announceStream(text);
  }

  /** Adds a finished picture. */
  picture(picture: Attachment, facts: string, seed: number, flagged: boolean | null): void {
    announceStreamEnd();
    this.canvas?.remove();
    this.canvas = this.paragraph = null;
    this.turn.answered.push(picture);
    const alt = `Drawing for: ${textOf(this.turn.asked) || plural(attachmentsOf(this.turn.asked).length, "picture")}`;
    this.put(pictureFigure(picture, alt, facts, seed, flagged, this.actions));
    announce(flagged ? "The picture was blacked out by the safety checker." : "The picture is finished.");
  }

  /** Ends an answer. */
  finish(facts: string): void {
    this.end();
    if (!this.turn.answered.length) {
      this.answer.append(h("p", { class: "note" }, SILENT));
      announce(SILENT);
    } else if (this.said) {
      const copy = iconButton("copy", "Copy answer", () => void copyText(copy, this.said.trim()));
      this.answer.append(h("div", { class: "footer" }, copy, h("span", { class: "facts" }, facts)));
    }
  }

  /** Shows that the visitor stopped it. */
  stopped(): void {
    this.end();
    this.answer.append(h("div", { class: "footer" }, h("span", { class: "note" }, "Stopped."), button("again", "Try again", this.actions.retry)));
    announce("Stopped.");
  }

  /** Shows an error. */
  failed({ wrong, advice, code }: Explained): void {
    this.end();
    this.answer.append(
      h(
        "div",
        { class: "error", role: "alert" },
        icon("alert"),
        h("div", {}, h("p", { class: "wrong" }, wrong), h("p", {}, advice), h("div", { class: "footer" }, button("again", "Try again", this.actions.retry, "outline"), h("code", {}, code))),
      ),
    );
  }

  private end(): void {
    announceStreamEnd();
    this.canvas?.remove();
    this.status.remove();
    this.answer.removeAttribute("aria-busy");
  }
}
