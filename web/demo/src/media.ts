/** Conversion of pictures and videos to attachments, and of canvases to files. */

import { framesOfVideo } from "emu-webgpu";

import { PageError } from "./errors.js";
import type { Attachment } from "./prompt.js";

/** Creates an attachment. Its object URL lives until `forget`. */
function attachment(kind: Attachment["kind"], name: string, blobs: Blob[], width: number, height: number): Attachment {
  return { kind, name, blobs, url: URL.createObjectURL(blobs[0] as Blob), width, height };
}

/** Frees an attachment's object URL. It cannot be shown afterwards. */
export const forget = (one: Attachment): void => URL.revokeObjectURL(one.url);

/** Whether the page accepts a file of this type. */
export const isMedia = (file: Blob): boolean => /^(image|video)\//.test(file.type);

/** Creates an attachment from a file: a picture unchanged, a video as its frames. */
export async function takeIn(file: Blob, name: string): Promise<Attachment> {
  if (file.type.startsWith("video/")) return video(file, name);
  // The model gets the bytes unchanged and decodes them itself. Decoding here only detects early whether it is a picture, and its
  // size.
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
  // Only elements can decode SVG.
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

/** A picture that the model drew, as an attachment. */
export async function drawn(image: ImageData, name: string): Promise<Attachment> {
  const { width, height } = image;
  return attachment("image", name, [await png(width, height, (context) => context.putImageData(image, 0, 0))], width, height);
}

/** The content painted on a canvas, as a PNG. */
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

/** Creates an attachment from the frames of a video. */
async function video(file: Blob, name: string): Promise<Attachment> {
  const frames = await framesOfVideo(file);
  const blobs: Blob[] = [];
  for (const frame of frames) blobs.push(await png(frame.width, frame.height, (context) => context.drawImage(frame, 0, 0)));
  const { width = 0, height = 0 } = frames[0] ?? {};
  for (const frame of frames) frame.close();
  return attachment("video", name, blobs, width, height);
}
