/** Screen reader announcements. One polite live region takes them all, so that none is read twice or interrupts another. */

import { $, h } from "./dom.js";

const region = $("announcer");
let heard = "";

/** Announces a sentence. */
export function announce(text: string): void {
  // One paragraph each: a region whose text is replaced by the same text stays silent.
  region.append(h("p", {}, text));
  while (region.childElementCount > 12) region.firstElementChild?.remove();
}

/** Announces streamed text by sentence or line; single tokens would be read as stutter. */
export function announceStream(text: string): void {
  heard += text;
  const end = Math.max(heard.lastIndexOf("\n"), ...[". ", "! ", "? "].map((mark) => heard.lastIndexOf(mark)));
  if (end < 0) return;
  announce(heard.slice(0, end + 1).trim());
  heard = heard.slice(end + 1);
}

/** Announces the rest of a stream. */
export function announceStreamEnd(): void {
  if (heard.trim()) announce(heard.trim());
  heard = "";
}
