/** A picture that the model drew, with its actions. */

import { announce } from "./announce.js";
import { h, iconButton, picture as shown } from "./dom.js";
import type { Attachment } from "./prompt.js";

export interface PictureActions {
  /** Attaches it to the next message. */
  use: (picture: Attachment) => void;
  /** Draws with the same request and another seed. */
  another: () => void;
  /** Uses its seed for the next drawings. */
  keepSeed: (seed: number) => void;
}

/** Display width of a picture: small ones are enlarged by an integer factor, large ones fit the column. */
export const shownWidth = (width: number): number => (width < 256 ? width * Math.max(1, Math.floor(256 / width)) : Math.min(width, 512));

/** Whether this browser can copy pictures to the clipboard. */
const canCopy = (): boolean => "ClipboardItem" in globalThis && Boolean(navigator.clipboard?.write);

/** Copies to the clipboard, and shows on the button and announces whether it worked. */
async function copy(button: HTMLButtonElement, write: () => Promise<void>): Promise<void> {
  try {
    await write();
    announce("Copied.");
    confirmed(button);
  } catch {
    announce("This browser did not allow copying.");
  }
}

/** Copies text. */
export const copyText = (button: HTMLButtonElement, text: string): Promise<void> => copy(button, () => navigator.clipboard.writeText(text));

/** Briefly shows success on a button. */
function confirmed(button: HTMLButtonElement): void {
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1500);
}

/** The picture with its facts and actions. `flagged`: the safety checker blacked it out. */
export function pictureFigure(picture: Attachment, alt: string, facts: string, seed: number, flagged: boolean | null, actions: PictureActions): HTMLElement {
  const image = shown(picture.url, alt, picture.width);
  // Set before it is decoded, to avoid a layout shift.
  Object.assign(image, { width: picture.width, height: picture.height });
  image.style.width = `${shownWidth(picture.width)}px`;
  const copier = iconButton("copy", "Copy picture", () => void copy(copier, () => navigator.clipboard.write([new ClipboardItem({ "image/png": picture.blobs[0] as Blob })])));
  const keep = iconButton("seed", `Use seed ${seed} for the next drawings`, () => {
    actions.keepSeed(seed);
    confirmed(keep);
  });
  return h(
    "figure",
    { class: "drawn" },
    image,
    h(
      "figcaption",
      {},
      flagged && h("p", { class: "flagged" }, "The safety checker blacked out this picture. Change the prompt or the seed."),
      h("span", { class: "facts" }, facts),
    ),
    h(
      "div",
      { class: "actions", role: "group", "aria-label": "Actions for this picture" },
      iconButton("again", "Draw another with a new seed", actions.another),
      keep,
      iconButton("use", "Use it in the next message", () => actions.use(picture)),
      canCopy() && copier,
      iconButton("download", "Download picture", () => h("a", { href: picture.url, download: `${picture.name}.png` }).click()),
    ),
  );
}
