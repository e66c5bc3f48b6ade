/** Frames of a video file, decoded by the browser. */

import { abortError, EmuError, throwIfAborted } from "./errors.js";
import { onAbort } from "./turn.js";

/** Frames per video that the model expects. */
export const FRAMES_PER_VIDEO = 8;
/** Frame rate assumed if the browser does not report frames. */
const FRAME_RATE = 30;
/** Timeout in milliseconds of each operation of the video element. */
const PATIENCE = 15_000;

/**
 * Indices of the frames to sample, `wanted` of `total`, as in the released code: with `step = (total - 1) / wanted`, frame i is
 * `floor(step / 2) + round(i * step)`, halves rounded to even.
 */
export function sampleOffsets(total: number, wanted: number): number[] {
  if (total < 1) return [];
  const step = (total - 1) / wanted;
  const start = Math.floor(step / 2);
  return Array.from({ length: wanted }, (_, i) => start + roundHalfToEven(step * i));
}

function roundHalfToEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  return down + (rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? 1 : 0);
}

/**
 * Samples `count` frames (default: 8) of a video, in order, for a `{ type: "video", frames }` part.
 *
 * @throws {EmuError} `bad-video` if the browser cannot play the file.
 * @throws {DOMException} `AbortError` when `options.signal` fires.
 */
export async function framesOfVideo(
  file: Blob,
  count = FRAMES_PER_VIDEO,
  options: { signal?: AbortSignal } = {},
): Promise<ImageBitmap[]> {
  const { signal } = options;
  throwIfAborted(signal);
  const video = document.createElement("video");
  const address = URL.createObjectURL(file);
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  const frames: ImageBitmap[] = [];
  try {
    const ready = happens(video, "loadeddata", signal);
    video.src = address;
    await ready;
    await findDuration(video, signal);
    const rate = await frameRate(video, signal);
    const total = Math.max(1, Math.round(video.duration * rate));
    for (const offset of sampleOffsets(total, count)) {
      const sought = happens(video, "seeked", signal);
      // Seeks to the middle of the frame, so that rounding does not select its neighbour.
      video.currentTime = Math.min((offset + 0.5) / rate, video.duration);
      await sought;
      frames.push(await createImageBitmap(video));
    }
    return frames;
  } catch (error) {
    for (const frame of frames) frame.close();
    if (error instanceof EmuError || (error as Error).name === "AbortError") throw error;
    throw bad("The browser cannot show this video's frames", error);
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(address);
  }
}

/** Waits for an event of a video. Rejects on an error, a timeout or an abort. */
function happens(video: HTMLVideoElement, event: string, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = (end: () => void) => {
      clearTimeout(timer);
      video.removeEventListener(event, done);
      video.removeEventListener("error", failed);
      unlisten();
      end();
    };
    const done = () => over(resolve);
    const failed = () =>
      over(() => reject(bad(`The browser cannot play this video (${video.error?.message || "unknown format"})`)));
    const timer = setTimeout(() => over(() => reject(bad("The browser took too long over this video"))), PATIENCE);
    video.addEventListener(event, done);
    video.addEventListener("error", failed);
    const unlisten = onAbort(signal, () => over(() => reject(abortError())));
  });
}

/** Determines the duration. Recordings made by a browser have none until their end has been sought. */
async function findDuration(video: HTMLVideoElement, signal: AbortSignal | undefined): Promise<void> {
  if (Number.isFinite(video.duration)) return;
  video.currentTime = Number.MAX_SAFE_INTEGER;
  do await happens(video, "durationchange", signal);
  while (!Number.isFinite(video.duration));
}

/** Frames per second: the inverse of the shortest interval between the first frames. */
async function frameRate(video: HTMLVideoElement, signal: AbortSignal | undefined): Promise<number> {
  if (!("requestVideoFrameCallback" in video)) return FRAME_RATE;
  let least = Infinity;
  let last: number | null = null;
  let shown = 0;
  video.currentTime = 0;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, 1000);
    const next = (_now: number, { mediaTime }: VideoFrameCallbackMetadata) => {
      if (last !== null && mediaTime > last) least = Math.min(least, mediaTime - last);
      last = mediaTime;
      if (++shown < 6 && !signal?.aborted) return void video.requestVideoFrameCallback(next);
      clearTimeout(timer);
      resolve();
    };
    video.requestVideoFrameCallback(next);
    video.play().catch(() => resolve());
  });
  video.pause();
  throwIfAborted(signal);
  const rate = 1 / least;
  return rate >= 1 && rate <= 240 ? rate : FRAME_RATE;
}

function bad(what: string, cause?: unknown): EmuError {
  return new EmuError("bad-video", `${what}. Convert it to MP4 with H.264, or give its frames as pictures.`, { cause });
}
