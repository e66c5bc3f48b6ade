/** Pictures: what a page has, what travels, what the engine takes. */

import { EmuError, throwIfAborted } from "./errors.js";
import { base } from "./pack.js";
import type { WirePicture } from "./protocol.js";
import type { ImageSource, Piece } from "./types.js";
import type { WasmPart, WasmPicture } from "./wasm.js";

/** Page side: prepares a picture for the journey. Decoding is left to the worker. */
export async function toWirePicture(source: ImageSource): Promise<WirePicture> {
  if (typeof source === "string" || source instanceof URL) return { address: address(source) };
  if (source instanceof Blob) return { blob: source };
  // Copied, since a view travels with the whole buffer that it looks into, and the caller may go on using it.
  if (source instanceof ArrayBuffer) return { bytes: new Uint8Array(source.slice(0)) };
  if (source instanceof Uint8Array) return { bytes: source.slice() };
  const { data, width, height } = (source ?? {}) as Partial<ImageData>;
  if (data instanceof Uint8ClampedArray && width && height) return { rgba: data.slice(), width, height };
  if (typeof source !== "object" || typeof createImageBitmap !== "function") {
    throw bad(
      "is none of the kinds that can be read",
      "Give a file, its bytes, an address, or an element that shows it",
    );
  }
  try {
    const element = (source ?? {}) as Partial<HTMLImageElement>;
    if (element.decode) await element.decode();
    return { bitmap: await createImageBitmap(source as ImageBitmapSource) };
  } catch (cause) {
    throw bad("does not decode", "Wait until the element shows it, or use another picture", cause);
  }
}

function address(given: string | URL): string {
  try {
    return new URL(given, base()).href;
  } catch (cause) {
    throw bad(`is at ${String(given).slice(0, 200)}, which is no address`, "Give an absolute address", cause);
  }
}

/** Page side: takes pictures out of pieces, and leaves their numbers. */
export async function takePictures(pieces: string | readonly Piece[], pictures: WirePicture[]): Promise<WasmPart[]> {
  const add = async (image: ImageSource) => pictures.push(await toWirePicture(image)) - 1;
  const parts: WasmPart[] = [];
  for (const piece of typeof pieces === "string" ? [pieces] : pieces) {
    if (typeof piece === "string") parts.push({ text: piece });
    else if (isPart(piece, "text")) parts.push({ text: piece.text });
    else if (isPart(piece, "image")) parts.push({ image: await add(piece.image) });
    else if (isPart(piece, "video")) {
      const video: number[] = [];
      for (const frame of piece.frames) video.push(await add(frame));
      parts.push({ video });
    } else parts.push({ image: await add(piece as ImageSource) });
  }
  return parts;
}

function isPart<T extends string>(piece: unknown, type: T): piece is Extract<Piece, { type: T }> {
  return (piece as { type?: unknown } | null)?.type === type;
}

/** Frees what {@link toWirePicture} made. */
export function release(pictures: readonly WirePicture[]): void {
  for (const picture of pictures) if ("bitmap" in picture) picture.bitmap.close();
}

/** Worker side: makes a picture ready for the engine. */
export async function toWasmPicture(
  picture: WirePicture,
  fetch: typeof globalThis.fetch,
  signal: AbortSignal,
): Promise<WasmPicture> {
  if ("rgba" in picture) return picture;
  if ("bitmap" in picture) return draw(picture.bitmap);
  if ("bytes" in picture) return decode(picture.bytes);
  if ("blob" in picture) return decode(new Uint8Array(await picture.blob.arrayBuffer()));
  let bytes: Uint8Array;
  try {
    const response = await fetch(picture.address, { signal });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throwIfAborted(signal);
    throw bad(
      `at ${picture.address.slice(0, 200)} could not be fetched`,
      "Check its address, and that its server lets this page read it",
      cause,
    );
  }
  return decode(bytes);
}

/** The engine decodes PNG, JPEG, GIF and WebP itself, as the native program does; others are the browser's. */
async function decode(bytes: Uint8Array): Promise<WasmPicture> {
  if (isKnown(bytes)) return bytes;
  try {
    return draw(await createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>])));
  } catch (cause) {
    throw bad("does not decode", "Use a PNG, JPEG, GIF or WebP file that is whole", cause);
  }
}

/** Whether the bytes begin as one of the engine's formats does. */
export function isKnown(bytes: Uint8Array): boolean {
  const head = String.fromCharCode(...bytes.subarray(0, 12));
  return /^(?:\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF[^]{4}WEBP)/.test(head);
}

function draw(bitmap: ImageBitmap): WasmPicture {
  const { width, height } = bitmap;
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
    context.drawImage(bitmap, 0, 0);
    return { rgba: context.getImageData(0, 0, width, height).data as Uint8ClampedArray, width, height };
  } catch (cause) {
    throw bad(`of ${width} x ${height} pixels cannot be read`, "Use a smaller one", cause);
  } finally {
    bitmap.close();
  }
}

function bad(what: string, advice: string, cause?: unknown): EmuError {
  return new EmuError("bad-image", `A picture ${what}. ${advice}.`, { cause });
}

/** Pixels as the page wants them; where there is no `ImageData` (Node), an object of its shape. */
export function toImageData({
  rgba,
  width,
  height,
}: {
  rgba: Uint8ClampedArray;
  width: number;
  height: number;
}): ImageData {
  const data = rgba as Uint8ClampedArray<ArrayBuffer>;
  return typeof ImageData === "function"
    ? new ImageData(data, width, height)
    : ({ data, width, height, colorSpace: "srgb" } as ImageData);
}
