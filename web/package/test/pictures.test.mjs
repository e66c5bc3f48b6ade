import assert from "node:assert/strict";
import { test } from "node:test";

import { isKnown, release, takePictures, toImageData, toWasmPicture, toWirePicture } from "../build/pictures.js";
import { PNG } from "./fake-wasm.mjs";

const signal = new AbortController().signal;
const bytes = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));

test("the engine's own formats are known by their first bytes", () => {
  for (const head of [
    "\x89PNG\r\n\x1a\n....",
    "\xff\xd8\xff\xe0",
    "GIF87a",
    "GIF89a",
    "RIFF\x10\0\0\0WEBPVP8 ",
    "BM\x36\x30\0\0\0\0\0\0\x36\0",
    "II*\0\x08\0\0\0",
    "MM\0*\0\0\0\x08",
  ])
    assert.ok(isKnown(bytes(head)), head);
  for (const head of [
    "",
    "BM....",
    "BMP is a format",
    "\x89PNX\r\n\x1a\n",
    "\xff\xd8",
    "GIF90a",
    "RIFF\x10\0\0\0WAVEfmt ",
    "<svg>",
    "....ftypavif",
  ])
    assert.ok(!isKnown(bytes(head)), head);
});

test("each kind of picture travels in its own way, and what the caller has stays his", async () => {
  const blob = new Blob([PNG]);
  assert.equal((await toWirePicture(blob)).blob, blob);

  const large = new Uint8Array(1000).fill(7);
  const view = large.subarray(10, 14);
  const sent = (await toWirePicture(view)).bytes;
  assert.deepEqual([...sent], [7, 7, 7, 7]);
  assert.equal(sent.buffer.byteLength, 4, "the buffer behind a view stays at home");
  view[0] = 1;
  assert.equal(sent[0], 7);

  const { bytes: copied } = await toWirePicture(large.buffer);
  assert.equal(copied.length, 1000);
  assert.notEqual(copied.buffer, large.buffer);

  const pixels = { data: new Uint8ClampedArray(8), width: 2, height: 1 };
  const wire = await toWirePicture(pixels);
  assert.deepEqual([wire.width, wire.height, wire.rgba.length], [2, 1, 8]);
  assert.notEqual(wire.rgba, pixels.data);

  assert.deepEqual(await toWirePicture("https://a.b/c.png"), { address: "https://a.b/c.png" });
  assert.deepEqual(await toWirePicture(new URL("https://a.b/c.png")), { address: "https://a.b/c.png" });
});

test("what is no picture is refused with a code", async () => {
  for (const wrong of [null, undefined, 7, {}, "no address", []]) {
    await assert.rejects(toWirePicture(wrong), { name: "EmuError", code: "bad-image" }, String(wrong));
  }
});

/** A browser's `createImageBitmap`, and canvases that reject reads of cross-origin pixels. */
function browser(t, createImageBitmap) {
  class OffscreenCanvas {
    constructor(width, height) {
      this.drawn = [width, height];
    }
    getContext = () => this;
    fillRect = (...where) => this.drawn.push(this.fillStyle, ...where);
    drawImage = (bitmap) => {
      this.bitmap = bitmap;
      this.drawn.push(bitmap.of);
    };
    getImageData = () => {
      if (this.bitmap.foreign) throw new DOMException("tainted", "SecurityError");
      return { data: this.drawn };
    };
  }
  Object.assign(globalThis, { createImageBitmap, OffscreenCanvas });
  t.after(() => {
    delete globalThis.createImageBitmap;
    delete globalThis.OffscreenCanvas;
  });
}

test("pictures of other origins are refused by name, before they are to be sent", async (t) => {
  const closed = [];
  browser(t, async (source) => ({ ...source, close: () => closed.push(source) }));
  const refused = { name: "EmuError", code: "bad-image", message: /another origin.*crossorigin="anonymous".*Access-Control/ };
  const image = { foreign: true, decode: async () => {} };
  await assert.rejects(toWirePicture(image), refused);
  assert.deepEqual(closed, [image]);
  // Some browsers reject at once.
  globalThis.createImageBitmap = () => Promise.reject(new DOMException("x", "SecurityError"));
  await assert.rejects(toWirePicture({}), refused);
});

test("a drawing without a size, and a browser that knows no option for turning", async (t) => {
  const asked = [];
  browser(t, async (source, how) => {
    asked.push(source);
    if (source.old && how) throw new TypeError("from-image is no ImageOrientation");
    if (source.naturalWidth) throw new DOMException("no size", "InvalidStateError");
    return { close: () => {} };
  });
  await toWirePicture({ naturalWidth: 300, naturalHeight: 150, of: "a drawing" });
  assert.deepEqual(asked[1].drawn, [300, 150, "a drawing"]);
  const old = { old: true };
  await toWirePicture(old);
  assert.deepEqual(asked.slice(2), [old, old]);
});

test("what the engine does not know goes through the worker's decoder, then the page's, over white", async (t) => {
  browser(t, async (blob) => {
    const text = await blob.text();
    if (text.startsWith("<svg")) throw new DOMException("x", "InvalidStateError");
    return { of: text, width: 2, height: 3, close: () => {} };
  });
  const avif = await toWasmPicture({ bytes: bytes("....ftypavif") }, fetch, signal);
  assert.deepEqual(avif, { rgba: [2, 3, "#fff", 0, 0, 2, 3, "....ftypavif"], width: 2, height: 3 });
  const svg = bytes("<svg xmlns='http://www.w3.org/2000/svg'/>");
  const page = async (given) => (given === svg ? { of: "drawn", width: 4, height: 5, close: () => {} } : null);
  const drawn = await toWasmPicture({ blob: new Blob([svg]) }, fetch, signal, async (given) => page(given.length === svg.length ? svg : given));
  assert.deepEqual(drawn, { rgba: [4, 5, "#fff", 0, 0, 4, 5, "drawn"], width: 4, height: 5 });
  assert.equal(await toWasmPicture({ bytes: svg }, fetch, signal), svg, "the engine says what it is");
});

test("elements go through the browser's decoder, once they have something to show", async (t) => {
  const closed = [];
  browser(t, async (source, how) => {
    if (source.broken) throw new DOMException("broken", "InvalidStateError");
    return { of: source, how, close: () => closed.push(source) };
  });
  const image = { decoded: false, decode: async () => (image.decoded = true) };
  const wire = await toWirePicture(image);
  assert.equal(wire.bitmap.of, image);
  assert.deepEqual(wire.bitmap.how, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  assert.ok(image.decoded);
  await assert.rejects(toWirePicture({ broken: true }), { code: "bad-image" });
  await assert.rejects(toWirePicture({ decode: () => Promise.reject(new DOMException("x", "EncodingError")) }), {
    code: "bad-image",
  });
  release([wire, { blob: new Blob() }]);
  assert.deepEqual(closed, [image]);
});

test("pieces become parts and numbered pictures", async () => {
  const pictures = [];
  const image = new Blob([PNG]);
  const parts = await takePictures(
    [
      "look:",
      image,
      { type: "text", text: "and" },
      { type: "image", image: "https://a.b/c.png" },
      { type: "video", frames: [image, image] },
      new URL("https://a.b/d.png"),
    ],
    pictures,
  );
  assert.deepEqual(parts, [
    { text: "look:" },
    { image: 0 },
    { text: "and" },
    { image: 1 },
    { video: [2, 3] },
    { image: 4 },
  ]);
  assert.equal(pictures.length, 5);
  assert.deepEqual(await takePictures("only text", pictures), [{ text: "only text" }]);
});

test("the worker gives the engine bytes or pixels", async () => {
  const fetch = async (address) =>
    address.endsWith("c.png") ? new Response(PNG) : new Response(null, { status: 404 });
  assert.deepEqual(await toWasmPicture({ bytes: PNG }, fetch, signal), PNG);
  assert.deepEqual(await toWasmPicture({ blob: new Blob([PNG]) }, fetch, signal), PNG);
  assert.deepEqual(await toWasmPicture({ address: "https://a.b/c.png" }, fetch, signal), PNG);
  const pixels = { rgba: new Uint8ClampedArray(4), width: 1, height: 1 };
  assert.equal(await toWasmPicture(pixels, fetch, signal), pixels);
  await assert.rejects(toWasmPicture({ address: "https://a.b/gone" }, fetch, signal), {
    code: "bad-image",
    message: /gone could not be fetched/,
  });
  // A format that the engine does not know either is reported by it.
  const strange = bytes("....ftypheic");
  assert.equal(await toWasmPicture({ bytes: strange }, fetch, signal), strange);
  const aborted = () => Promise.reject(new DOMException("x", "AbortError"));
  await assert.rejects(toWasmPicture({ address: "https://a.b/c.png" }, aborted, AbortSignal.abort()), {
    name: "AbortError",
  });
});

test("pixels come back in the shape of ImageData", () => {
  const { data, width, height } = toImageData({ rgba: new Uint8ClampedArray(8), width: 2, height: 1 });
  assert.deepEqual([data.length, width, height], [8, 2, 1]);
});
