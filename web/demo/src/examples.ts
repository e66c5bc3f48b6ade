/** Examples to click, from each bundled model's list, which is stored with the pictures. */

import { $, h, icon, show } from "./dom.js";

type Kind = "caption" | "answer" | "complete" | "draw" | "blend";

/** One example, as in `demo.json`. */
export interface Example {
  kind: Kind;
  /** URLs. */
  images: string[];
  prompt: string;
}

interface Group {
  kind: Kind;
  title: string;
  about: string;
  items: Example[];
}

/** Number of examples of each kind on the first page. The rest are in the dialog. */
const FIRST: Record<Kind, number> = { caption: 1, answer: 2, complete: 1, draw: 3, blend: 1 };
const VERBS: Record<Kind, string> = { caption: "Describe", answer: "Ask", complete: "Continue the series", draw: "Draw", blend: "Blend" };

/** Text of a card whose example has no text. */
const words = ({ kind, images, prompt }: Example): string => {
  if (kind === "caption") return "What is in this picture?";
  if (kind === "complete") return prompt.split("<image>").map((text) => text.trim()).filter(Boolean).join(" · ") + " · …";
  return prompt || `${images.length} pictures become one`;
};

/** CSS class of examples that ask for a picture: they are shown only if the model draws. */
const draws = (kind: Kind) => (kind === "draw" || kind === "blend" ? " drawing" : "");

function card(example: Example, pick: (example: Example) => void): HTMLButtonElement {
  const { kind, images } = example;
  const pictures = images.map((src) => h("img", { src, alt: "", loading: "lazy", class: "pixelated" }));
  const says = kind === "answer" && !pictures.length;
  return h(
    "button",
    { type: "button", class: `example${kind === "blend" ? " pair" : ""}${draws(kind)}`, click: () => pick(example) },
    h("span", { class: "thumbs" }, ...(pictures.length ? pictures : [icon(says ? "chat" : "draw")])),
    h("span", { class: "what" }, h("span", { class: "verb" }, says ? "Say" : VERBS[kind]), h("span", {}, words(example))),
  );
}

/** Reads a model's list. If it is missing, for example on a custom host, there are no examples and everything else works. */
async function read(folder: string): Promise<Group[]> {
  try {
    const answer = await fetch(`${folder}demo.json`);
    if (!answer.ok) return [];
    const { steps } = (await answer.json()) as { steps: (Omit<Group, "items"> & { items: Partial<Example>[] })[] };
    return steps
      .filter(({ kind }) => kind in VERBS)
      .map(({ kind, title, about, items }) => ({ kind, title, about, items: items.map(({ images = [], prompt = "" }) => ({ kind, images: images.map((name) => folder + name), prompt })) }));
  } catch {
    return [];
  }
}

/** Shows the examples of a bundled model on the first page and in the dialog; other models have none. */
export async function showExamples(model: string | null, pick: (example: Example) => void): Promise<void> {
  const groups = model ? await read(`examples/${model}/`) : [];
  const dialog = $<HTMLDialogElement>("examples-dialog");
  show("examples", groups.length > 0);
  show("examples-open", groups.length > 0);
  $("examples-open").addEventListener("click", () => dialog.showModal());
  const picked = (example: Example) => {
    dialog.close();
    pick(example);
  };
  $("examples-list").replaceChildren(...groups.flatMap(({ kind, items }) => items.slice(0, FIRST[kind]).map((item) => card(item, picked))));
  $("examples-all").replaceChildren(
    ...groups.map(({ kind, title, about, items }) => h("section", { class: draws(kind) }, h("h3", {}, title), about && h("p", { class: "hint" }, about), h("div", { class: "cards" }, ...items.map((item) => card(item, picked))))),
  );
}

/** Fetches the pictures of an example as files. */
export function files(example: Example): Promise<File[]> {
  return Promise.all(
    example.images.map(async (address) => {
      const blob = await (await fetch(address)).blob();
      return new File([blob], address.replace(/^.*\/|\.\w+$/g, ""), { type: blob.type || "image/png" });
    }),
  );
}
