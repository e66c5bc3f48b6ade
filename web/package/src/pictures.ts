/** Picture conversion: from the page's sources to messages for the worker to the engine's input. */

import { EmuError, throwIfAborted } from "./errors.js";
import { base } from "./pack.js";
import type { WirePicture } from "./protocol.js";
import type { ImageSource, Piece } from "./types.js";
import type { WasmPart, WasmPicture } from "./wasm.js";

/** Page side: prepares a picture for the worker, which decodes it. @throws {EmuError} `bad-image` */
export async function toWirePicture(source: ImageSource): Promise<WirePicture> {
  if (typeof source === "string" || source instanceof URL) return { address: address(source) };
  if (source instanceof Blob) return { blob: source };
  // Copied: a view would be cloned with its whole buffer, and the caller may go on using it.
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
    const bitmap = await bitmapOf(source as ImageBitmapSource);
    checkOrigin(bitmap);
    return { bitmap };
  } catch (cause) {
    if ((cause as DOMException | null)?.name === "SecurityError") {
      const advice =
        'Set crossorigin="anonymous" on the element before its address, and have that server send Access-Control-Allow-Origin';
      throw bad("comes from another origin, whose pixels this page may not read", advice, cause);
    }
    throw bad("does not decode", "Wait until the element shows it, or use another picture", cause);
  }
}

/** A bitmap as the engine's own decoders would make it: upright, without color management. `size` is for SVGs without one. */
async function bitmapOf(source: ImageBitmapSource, size?: [number, number]): Promise<ImageBitmap> {
  if (size) {
    // Chromium creates an empty bitmap if `createImageBitmap` is given the size.
    const canvas = new OffscreenCanvas(...size);
    canvas.getContext("2d")!.drawImage(source as HTMLImageElement, 0, 0, ...size);
    return createImageBitmap(canvas);
  }
  try {
    return await createImageBitmap(source, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch (error) {
    // Older browsers orient by default and reject the option.
    if (error instanceof TypeError) return createImageBitmap(source);
    const { naturalWidth, naturalHeight } = source as HTMLImageElement;
    if (naturalWidth) return bitmapOf(source, [naturalWidth, naturalHeight]);
    throw error;
  }
}

/** Rejects a bitmap with unreadable pixels, which could not be posted to the worker either. @throws a `SecurityError` */
function checkOrigin(bitmap: ImageBitmap): void {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  try {
    context.getImageData(0, 0, 1, 1);
  } catch (error) {
    bitmap.close();
    throw error;
  }
}

/** Page side: decodes what workers cannot, which is SVG, with an `<img>`; `null` if that fails too. */
export async function drawInPage(bytes: Uint8Array): Promise<ImageBitmap | null> {
  const svg = /<svg\b[^>]*/i.exec(new TextDecoder().decode(bytes.subarray(0, 8192)))?.[0];
  const blob = new Blob([bytes as Uint8Array<ArrayBuffer>], svg ? { type: "image/svg+xml" } : {});
  const address = URL.createObjectURL(blob);
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const bitmap = await bitmapOf(image, svg ? sizeOf(svg) : undefined);
    checkOrigin(bitmap);
    return bitmap;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Length in pixels of the longer side of an SVG that has an aspect ratio only. */
const UNSIZED = 512;

/** Size for an SVG without one, from its opening tag; undefined if it has a size. */
function sizeOf(svg: string): [number, number] | undefined {
  if (/\swidth\s*=\s*["']\s*[\d.]+\s*(?:[a-z]|["'])/i.test(svg)) return undefined;
  const box = /\sviewBox\s*=\s*["']\s*(?:[-+\d.e]+[\s,]+){2}([\d.e]+)[\s,]+([\d.e]+)/i.exec(svg);
  const [width, height] = box ? [Number(box[1]), Number(box[2])] : [1, 1];
  const scale = UNSIZED / Math.max(width, height);
  const side = (length: number) => Math.max(1, Math.round(length * scale));
  return [side(width), side(height)];
}

function address(given: string | URL): string {
  try {
    return new URL(given, base()).href;
  } catch (cause) {
    throw bad(`is at ${String(given).slice(0, 200)}, which is no address`, "Give an absolute address", cause);
  }
}

/** Page side: moves the pictures of `pieces` to `pictures`, and leaves their indices. */
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

/** Frees the bitmaps that {@link toWirePicture} made. */
export function release(pictures: readonly WirePicture[]): void {
  for (const picture of pictures) if ("bitmap" in picture) picture.bitmap.close();
}

/** Worker side: converts a picture to the engine's input. @throws {EmuError} `bad-image` */
export async function toWasmPicture(
  picture: WirePicture,
  fetch: typeof globalThis.fetch,
  signal: AbortSignal,
  page: (bytes: Uint8Array) => Promise<ImageBitmap | null> = async () => null,
): Promise<WasmPicture> {
  if ("rgba" in picture) return picture;
  if ("bitmap" in picture) return draw(picture.bitmap);
  if ("bytes" in picture) return decode(picture.bytes, page);
  if ("blob" in picture) return decode(new Uint8Array(await picture.blob.arrayBuffer()), page);
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
  return decode(bytes, page);
}

/**
 * The engine decodes PNG, JPEG, GIF, WebP, BMP and TIFF, as the native program does; the browser decodes other formats. Bytes
 * that neither can decode go to the engine, which reports the error.
 */
async function decode(bytes: Uint8Array, page: (bytes: Uint8Array) => Promise<ImageBitmap | null>): Promise<WasmPicture> {
  if (isKnown(bytes) || bytes.length === 0 || typeof createImageBitmap !== "function") return bytes;
  const blob = new Blob([bytes as Uint8Array<ArrayBuffer>]);
  const bitmap = await bitmapOf(blob).catch(() => page(bytes));
  return bitmap ? draw(bitmap) : bytes;
}

/** Whether the bytes start with the signature of a format that the engine decodes. */
export function isKnown(bytes: Uint8Array): boolean {
  const head = String.fromCharCode(...bytes.subarray(0, 12));
  return /^(?:\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF[^]{4}WEBP|BM[^]{4}\0{4}|II\*\0|MM\0\*)/.test(head);
}

function draw(bitmap: ImageBitmap): WasmPicture {
  const { width, height } = bitmap;
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
    // Transparency is composited over white, as in the engine.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
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

/** Pixels as `ImageData`; where there is none (Node), an object of the same shape. */
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
