/** Runs in the page: the package and helpers for the tests. Everything is reached through `lab`. */

import { Emu } from "emu-webgpu";
import { provoke } from "emu-webgpu/testing";

/** Settles a promise: `{ value }`, or `{ error }` with its serializable fields. */
async function outcome(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { error: { name: error?.name, code: error?.code, message: String(error?.message ?? error) } };
  }
}

/** Loads into `lab.emu`. Returns the progress events, and the error if there was one. */
async function load(url, options = {}) {
  const progress = [];
  const onProgress = (event) => {
    progress.push(event);
    options.onProgress?.(event);
  };
  const start = performance.now();
  const { value, error } = await outcome(Emu.load(url, { ...options, onProgress }));
  if (value) lab.emu = value;
  return { error, progress, milliseconds: performance.now() - start, device: value?.device, reasons: value?.support.reasons };
}

/** Collects a whole answer. */
async function chat(content, options = {}, emu = lab.emu) {
  let text = "";
  let usage = null;
  const images = [];
  for await (const event of emu.chat([{ role: "user", content }], options)) {
    if (event.type === "text") text += event.text;
    else if (event.type === "image") images.push(pixels(event.image));
    else usage = event;
  }
  return { text, usage, images };
}

/** Draws, and returns the picture in serializable form. */
async function draw(parts, options = {}, emu = lab.emu) {
  const { image, seed, flagged } = await emu.generateImage(parts, options);
  return { ...pixels(image), seed, flagged };
}

/** Pixels as base64, which is fast to return from the page. */
function pixels({ width, height, data }) {
  let text = "";
  for (let at = 0; at < data.length; at += 0x8000) text += String.fromCharCode(...data.subarray(at, at + 0x8000));
  return { width, height, base64: btoa(text) };
}

/** Fetches the bytes of a file of the site. */
const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());

/**
 * Calls `act` when a call reports `phase` for the `nth` time.
 *
 * @returns the call's `outcome`; `acted`, milliseconds from there to its end; `longest`, milliseconds of its longest step until
 * then; `phases`, the reported phases.
 */
async function during(phase, nth, act, start) {
  let seen = 0;
  let at = null;
  let last = performance.now();
  let longest = 0;
  const phases = [];
  const onProgress = (event) => {
    const now = performance.now();
    if (at === null) longest = Math.max(longest, now - last);
    last = now;
    phases.push(event.phase);
    if (event.phase !== phase || ++seen !== nth) return;
    at = performance.now();
    act();
  };
  const ended = await outcome(start(onProgress));
  return { ...ended, acted: at === null ? null : performance.now() - at, longest, phases };
}

/** Aborts a call in a phase. `start` receives the signal and the progress listener. */
function abortIn(phase, nth, start) {
  const controller = new AbortController();
  return during(phase, nth, () => controller.abort(), (onProgress) => start({ signal: controller.signal, onProgress }));
}

/** Milliseconds until the worker is idle. */
async function untilIdle() {
  const start = performance.now();
  await lab.emu.memory();
  return performance.now() - start;
}

globalThis.lab = { Emu, emu: null, provoke, outcome, load, chat, draw, pixels, bytes, during, abortIn, untilIdle };
