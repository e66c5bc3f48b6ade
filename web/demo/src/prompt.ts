/** Builds the messages for the model from text and attachments. Does not touch the DOM. */

import type { Message, Part, Support } from "emu-webgpu";

import { PageError } from "./errors.js";

/** A picture, or the frames of a video, attached or drawn. */
export interface Attachment {
  kind: "image" | "video";
  name: string;
  /** One blob for a picture; the frames in order for a video. */
  blobs: Blob[];
  /** Object URL of the first blob, for display. */
  url: string;
  width: number;
  height: number;
}

/** One part of a message, in reading order. */
export type Piece = string | Attachment;

/** A request and its answer. */
export interface Exchange {
  asked: Piece[];
  answered: Piece[];
}

/** What a message is sent with: the latest pictures, or the whole conversation. */
export type Context = "pictures" | "conversation";

const MARK = /<(image|video)>/;

/** The pieces of a message. `<image>` and `<video>` marks in the text are filled in the order of attachment. Without marks,
 * videos and then pictures precede the text, as in the `emu` program. */
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
        `Give each ${kind} one mark, or remove the marks.`,
      );
    }
  }
  const result = leading;
  for (const [index, piece] of text.split(MARK).entries()) {
    // `split` returns the captured groups at odd indices.
    const attachment = index % 2 ? waiting[piece as "image" | "video"].shift() : undefined;
    if (attachment) result.push(attachment);
    else if (piece) result.push(piece);
  }
  return result;
}

const isAttachment = (piece: Piece): piece is Attachment => typeof piece !== "string";

/** The attachments among pieces. */
export const attachmentsOf = (list: readonly Piece[]): Attachment[] => list.filter(isAttachment);

/** The text among pieces. */
export const textOf = (list: readonly Piece[]): string => list.filter((piece) => typeof piece === "string").join(" ").trim();

/** Converts pieces to the package's parts. */
export function parts(list: readonly Piece[]): Part[] {
  return list.map((piece) => {
    if (typeof piece === "string") return { type: "text", text: piece };
    if (piece.kind === "video") return { type: "video", frames: piece.blobs };
    return { type: "image", image: piece.blobs[0] as Blob };
  });
}

/** The pictures of the latest exchange that had any: the subject of a question without pictures. */
export function latestPictures(past: readonly Exchange[]): Attachment[] {
  for (const { asked, answered } of [...past].reverse()) {
    const drawn = attachmentsOf(answered);
    if (drawn.length) return drawn;
    const shown = attachmentsOf(asked);
    // In a series of examples, the last picture is the subject.
    const series = asked.some((piece, index) => isAttachment(piece) && typeof asked[index - 1] === "string");
    if (shown.length) return series ? shown.slice(-1) : shown;
  }
  return [];
}

/** Messages that ask for the next answer.
 *
 * "conversation" sends the whole history. "pictures" sends this message alone, after the pictures that it is `about`: a small
 * model that was trained on single turns answers such questions best one at a time.
 *
 * Only the text of an answer is sent, since the model reads nothing else of it. An exchange without text in its answer is
 * omitted: no model was trained on a turn with an empty answer. */
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

/** A language model with fewer bytes cannot follow a conversation, unless its pack says that it was made for that. */
const SMALL_LM = 256e6;

/** Default context for a model. */
export function contextFor(support: Pick<Support, "model" | "plan"> | null): Context {
  const lm = support?.plan.find(({ component }) => component === "lm");
  return support?.model.converses || (lm?.download ?? 0) >= SMALL_LM ? "conversation" : "pictures";
}
