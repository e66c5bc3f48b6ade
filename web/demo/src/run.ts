/** Runs one turn of the model and shows its events. */

import type { Emu } from "emu-webgpu";

import { seconds } from "./format.js";
import { drawn } from "./media.js";
import { attachmentsOf, messages, parts, type Context, type Exchange } from "./prompt.js";
import type { Session } from "./session.js";
import { chatOptions, drawOptions, textOptions, type Settings } from "./settings.js";
import type { TurnView } from "./turn.js";

export interface Surroundings {
  session: Session;
  settings: Settings;
  /** Earlier exchanges. */
  past: Exchange[];
  context: Context;
  signal: AbortSignal;
}

/** Runs a turn to its end. Rejects with the package's errors. */
export async function run(view: TurnView, around: Surroundings): Promise<void> {
  const { session, signal } = around;
  const emu = await session.ready(signal);
  session.tracker.begin();
  if (view.turn.mode === "draw") await draw(emu, view, around);
  else if (describes(view)) await describe(emu, view, around);
  else await chat(emu, view, around);
}

/** Whether there are only pictures: each is then captioned. The frames of a video belong together and are asked about as one. */
function describes({ turn }: TurnView): boolean {
  return turn.asked.every((piece) => typeof piece !== "string" && piece.kind === "image");
}

/** Options of every call. After a lost device or a crash, the package restarts the call from its cache with the same seed. */
const hooks = ({ tracker }: Session, signal: AbortSignal) => ({ signal, retry: true, onProgress: tracker.take });

/** Facts under a picture. */
const pictureFacts = (view: TurnView, seed: number, started: number): string =>
  [`seed ${seed}`, view.steps && `${view.steps} steps`, seconds((performance.now() - started) / 1000)].filter(Boolean).join(" · ");

async function draw(emu: Emu, view: TurnView, { session, settings, signal }: Surroundings): Promise<void> {
  const { asked, seed } = view.turn;
  const started = performance.now();
  const result = await emu.generateImage(parts(asked), { ...drawOptions(settings), seed, ...hooks(session, signal) });
  view.picture(await drawn(result.image, `emu-${result.seed}`), pictureFacts(view, result.seed, started), result.seed, result.flagged);
  view.finish("");
}

async function describe(emu: Emu, view: TurnView, { session, settings, signal }: Surroundings): Promise<void> {
  const { asked, seed } = view.turn;
  const pictures = attachmentsOf(asked);
  const started = performance.now();
  for (const [index, picture] of pictures.entries()) {
    const caption = await emu.caption(picture.blobs[0] as Blob, { ...textOptions(settings, seed), ...hooks(session, signal) });
    view.text(pictures.length > 1 ? `${index ? "\n" : ""}${index + 1}. ${caption.trim()}` : caption);
  }
  view.finish(seconds((performance.now() - started) / 1000));
}

async function chat(emu: Emu, view: TurnView, { session, settings, past, context, signal }: Surroundings): Promise<void> {
  const { asked, about, seed } = view.turn;
  const started = performance.now();
  let facts = "";
  // A series that ends with a picture asks for its text, not for another picture.
  const words = typeof asked.at(-1) !== "string" ? { images: false } : {};
  const options = { ...chatOptions(settings, seed), ...words, ...hooks(session, signal) };
  for await (const event of emu.chat(messages(past, asked, about, context), options)) {
    if (event.type === "text") view.text(event.text);
    else if (event.type === "image") {
      view.picture(await drawn(event.image, `emu-${event.seed}`), pictureFacts(view, event.seed, started), event.seed, event.flagged);
    } else {
      const { tokens, seconds: time, finish } = event;
      const speed = time > 0 ? ` · ${(tokens / time).toFixed(0)} tokens/s` : "";
      // The text on a drawn picture is not generated token by token.
      if (tokens) facts = `${tokens} tokens · ${seconds(time)}${speed}${finish === "length" ? " · cut off at the maximum length" : ""}`;
    }
  }
  view.finish(facts);
}
