/** Keeps the end of the conversation in view while the visitor is there, and leaves the page alone when they read further up. */

import { $ } from "./dom.js";

/** Pixels from the end that count as there when the visitor comes back down. */
const NEAR = 96;

let there = true;
let last = 0;

const distance = (): number => document.documentElement.scrollHeight - scrollY - innerHeight;

/** Goes to the end if the visitor is there; with `always`, from anywhere. */
export function follow(always = false): void {
  there ||= always;
  if (there) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

/** Goes to the end because the visitor asked. */
export function latest(): void {
  follow(true);
  $("prompt").focus();
}

/** Notices where the visitor is. Upwards goes nobody but the visitor: the page itself only follows down. */
export function watchScrolling(): void {
  const [jump, log] = [$("jump"), $("log")];
  addEventListener("scroll", () => {
    const left = distance();
    // A page that got shorter moves up too, and is at its end then.
    if (scrollY < last) there = left < 2;
    else there ||= left < NEAR;
    last = scrollY;
    jump.hidden = there || left < NEAR;
  }, { passive: true });
  // Pictures and words make the page longer without a scroll event.
  new ResizeObserver(() => log.hasChildNodes() && follow()).observe(log);
}
