/** From what the visitor typed and attached to the messages that the model reads. Touches no page. */

import type { Message, Part, Support } from "emu-webgpu";

import { PageError } from "./errors.js";

/** A picture, or a video as its frames, that was attached or drawn. */
export interface Attachment {
  kind: "image" | "video";
  name: string;
  /** One blob for a picture; the frames in order for a video. */
  blobs: Blob[];
  /** Object address of the first blob, to show it. */
  url: string;
  width: number;
  height: number;
}

/** What was said, in reading order. */
export type Piece = string | Attachment;

/** A request and what came of it. */
export interface Exchange {
  asked: Piece[];
  answered: Piece[];
}

/** What of the conversation goes with a message. */
export type Context = "pictures" | "conversation";

const MARK = /<(image|video)>/;

/** The pieces of a message. `<image>` and `<video>` marks in the text are filled in the order of attaching. Without marks, videos and then pictures come
 * before the text, as they do for the `emu` program. */
export function pieces(text: string, attachments: readonly Attachment[]): Piece[] {
  const waiting = { image: attachments.filter(({ kind }) => kind === "image"), video: attachments.filter(({ kind }) => kind === "video") };
  const leading: Piece[] = [];
  for (const kind of ["video", "image"] as const) {
    const marks = text.split(`<${kind}>`).length - 1;
    if (marks === 0) leading.push(...waiting[kind]);
    else if (marks !== waiting[kind].length) {
      throw new PageError(
        "marks",
        `The text has ${marks} <${kind}> ${marks === 1 ? "mark" : "marks"}, but the number of attached ${kind}s is ${waiting[kind].length}.`,
        `Give each ${kind} one mark, or take the marks out.`,
      );
    }
  }
  const result = leading;
  for (const [index, piece] of text.split(MARK).entries()) {
    // `split` returns what the group caught at the odd places.
    const attachment = index % 2 ? waiting[piece as "image" | "video"].shift() : undefined;
    if (attachment) result.push(attachment);
    else if (piece) result.push(piece);
  }
  return result;
}

const isAttachment = (piece: Piece): piece is Attachment => typeof piece !== "string";

/** The attachments among pieces. */
export const attachmentsOf = (list: readonly Piece[]): Attachment[] => list.filter(isAttachment);

/** The words among pieces. */
export const textOf = (list: readonly Piece[]): string => list.filter((piece) => typeof piece === "string").join(" ").trim();

/** As the package takes them. */
export function parts(list: readonly Piece[]): Part[] {
  return list.map((piece) => {
    if (typeof piece === "string") return { type: "text", text: piece };
    if (piece.kind === "video") return { type: "video", frames: piece.blobs };
    return { type: "image", image: piece.blobs[0] as Blob };
  });
}

/** The pictures of the latest exchange that had any: what a question without pictures is about. */
export function latestPictures(past: readonly Exchange[]): Attachment[] {
  for (const { asked, answered } of [...past].reverse()) {
    const drawn = attachmentsOf(answered);
    if (drawn.length) return drawn;
    const shown = attachmentsOf(asked);
    // Of a series of examples, the last one is what it was all about.
    const series = asked.some((piece, index) => isAttachment(piece) && typeof asked[index - 1] === "string");
    if (shown.length) return series ? shown.slice(-1) : shown;
  }
  return [];
}

/** Messages that ask for the next answer.
 *
 * "conversation" sends everything that was said. "pictures" sends this message alone, after the pictures that it is `about`: a small model that never saw a
 * second turn in training answers such questions best one by one.
 *
 * Of an answer only the words go along, since the model reads nothing else of it, and an exchange that was answered without any is left out: a turn with an
 * empty answer is one that no model was trained on. */
export function messages(past: readonly Exchange[], asked: readonly Piece[], about: readonly Attachment[], context: Context): Message[] {
  if (context === "pictures") return [{ role: "user", content: parts([...about, ...asked]) }];
  const before = past.flatMap((exchange): Message[] => {
    const said = exchange.answered.filter((piece) => !isAttachment(piece));
    if (!said.length) return [];
    return [
      { role: "user", content: parts(exchange.asked) },
      { role: "assistant", content: parts(said) },
    ];
  });
  return [...before, { role: "user", content: parts(asked) }];
}

/** A language model of fewer bytes than this cannot follow a conversation, unless its pack says that it was made for that. */
const SMALL_LM = 256e6;

/** What fits a model when the visitor did not choose. */
export function contextFor(support: Pick<Support, "model" | "plan"> | null): Context {
  const lm = support?.plan.find(({ component }) => component === "lm");
  return support?.model.converses || (lm?.download ?? 0) >= SMALL_LM ? "conversation" : "pictures";
}
