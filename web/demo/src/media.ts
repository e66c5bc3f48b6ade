/** Pictures and videos on their way in, and pictures on their way out. */

import { framesOfVideo } from "emu-webgpu";

import { PageError } from "./errors.js";
import type { Attachment } from "./prompt.js";

/** Where a stored picture can be shown. The address lives until `forget`. */
function attachment(kind: Attachment["kind"], name: string, blobs: Blob[], width: number, height: number): Attachment {
  return { kind, name, blobs, url: URL.createObjectURL(blobs[0] as Blob), width, height };
}

/** Gives an attachment's memory back. It cannot be shown afterwards. */
export const forget = (one: Attachment): void => URL.revokeObjectURL(one.url);

/** Whether a file is one that the page takes. */
export const isMedia = (file: Blob): boolean => /^(image|video)\//.test(file.type);

/** Takes a file in: a picture as it is, a video as its frames. */
export async function takeIn(file: Blob, name: string): Promise<Attachment> {
  if (file.type.startsWith("video/")) return video(file, name);
  // The bytes go to the model as they are, decoding is its own. Decoding here only finds out early whether it is a picture at all, and its size.
  const size = await sizeOf(file).catch(() => {
    throw new PageError("not-a-picture", `“${name}” cannot be read as a picture.`, "Choose a PNG, JPEG, GIF, WebP, AVIF, BMP or SVG file.");
  });
  return attachment("image", name, [file], ...size);
}

async function sizeOf(file: Blob): Promise<[width: number, height: number]> {
  if (file.type !== "image/svg+xml") {
    const bitmap = await createImageBitmap(file);
    const { width, height } = bitmap;
    bitmap.close();
    return [width, height];
  }
  // Drawings are decoded by elements alone.
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

/** A picture that the model drew, as a file. */
export async function drawn(image: ImageData, name: string): Promise<Attachment> {
  const { width, height } = image;
  return attachment("image", name, [await png(width, height, (context) => context.putImageData(image, 0, 0))], width, height);
}

/** What is painted on a canvas, as a PNG. */
export function png(width: number, height: number, paint: (context: CanvasRenderingContext2D) => void): Promise<Blob> {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  if (context) paint(context);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => {
      if (blob) resolve(blob);
      else reject(new PageError("no-memory", "The picture could not be stored.", "Close other tabs and try again."));
    }),
  );
}

/** A video as the frames that the model is made to see. */
async function video(file: Blob, name: string): Promise<Attachment> {
  const frames = await framesOfVideo(file);
  const blobs: Blob[] = [];
  for (const frame of frames) blobs.push(await png(frame.width, frame.height, (context) => context.drawImage(frame, 0, 0)));
  const { width = 0, height = 0 } = frames[0] ?? {};
  for (const frame of frames) frame.close();
  return attachment("video", name, blobs, width, height);
}
