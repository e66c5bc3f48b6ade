/** Words for screen readers. One polite live region takes them all, so that nothing is read twice or in the middle of something else. */

import { $, h } from "./dom.js";

const region = $("announcer");
let heard = "";

/** Has a sentence read out. */
export function announce(text: string): void {
  // A paragraph each: a region whose text is replaced by the same text stays silent.
  region.append(h("p", {}, text));
  while (region.childElementCount > 12) region.firstElementChild?.remove();
}

/** Has streamed text read out, a sentence or line at a time: single tokens would be read as stutter. */
export function announceStream(text: string): void {
  heard += text;
  const end = Math.max(heard.lastIndexOf("\n"), ...[". ", "! ", "? "].map((mark) => heard.lastIndexOf(mark)));
  if (end < 0) return;
  announce(heard.slice(0, end + 1).trim());
  heard = heard.slice(end + 1);
}

/** Has the rest of a stream read out. */
export function announceStreamEnd(): void {
  if (heard.trim()) announce(heard.trim());
  heard = "";
}
