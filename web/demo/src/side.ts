/** Opens and closes the panel. It is beside the conversation in a wide window, and over it in a narrow one. */

import { $ } from "./dom.js";

const narrow = matchMedia("(max-width: 60rem)");

export function bindSide(changed: (open: boolean) => void): void {
  const panel = $("panel");
  const openers = [$("panel-toggle"), $("model-chip")];
  const close = $("panel-close");
  let opener = openers[0] as HTMLElement;

  const set = (open: boolean) => {
    panel.hidden = !open;
    document.body.classList.toggle("with-panel", open);
    for (const one of openers) one.setAttribute("aria-expanded", String(open));
    cover();
    if (open) close.focus({ preventScroll: true });
    else if (panel.contains(document.activeElement) || document.activeElement === document.body) opener.focus({ preventScroll: true });
    changed(open);
  };
  /** Content under the panel must not be reachable by keyboard. */
  const cover = () => {
    for (const id of ["main", "bar"]) $(id).inert = !panel.hidden && narrow.matches;
  };
  for (const one of openers) {
    one.addEventListener("click", () => {
      opener = one;
      set(Boolean(panel.hidden));
    });
  }
  close.addEventListener("click", () => set(false));
  narrow.addEventListener("change", cover);
  panel.addEventListener("keydown", (event) => {
    // Beside the conversation, Escape keeps its meaning there: it stops what runs.
    if (event.key !== "Escape" || !narrow.matches) return;
    event.stopPropagation();
    set(false);
  });
}
