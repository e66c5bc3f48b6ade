/** Keeps the end of the conversation in view while the visitor is there, and does not scroll while they read further up. */

import { $ } from "./dom.js";

/** Distance from the end, in pixels, that counts as the end when the visitor scrolls down. */
const NEAR = 96;

let there = true;
let last = 0;

const distance = (): number => document.documentElement.scrollHeight - scrollY - innerHeight;

/** Scrolls to the end if the visitor is there; with `always`, in any case. */
export function follow(always = false): void {
  there ||= always;
  if (there) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

/** Scrolls to the end at the visitor's request. */
export function latest(): void {
  follow(true);
  $("prompt").focus();
}

/** Tracks the scroll position. Only the visitor scrolls up: the page itself only scrolls down. */
export function watchScrolling(): void {
  const [jump, log] = [$("jump"), $("log")];
  addEventListener("scroll", () => {
    const left = distance();
    // A page that became shorter moves up too, but is then at its end.
    if (scrollY < last) there = left < 2;
    else there ||= left < NEAR;
    last = scrollY;
    jump.hidden = there || left < NEAR;
  }, { passive: true });
  // Pictures and text make the page longer without a scroll event.
  new ResizeObserver(() => log.hasChildNodes() && follow()).observe(log);
}
