/** Reads PNG files and compares pixels. */

import assert from "node:assert/strict";
import { inflateSync } from "node:zlib";

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** Samples per pixel by color type of a PNG: RGB and RGBA. */
const SAMPLES = { 2: 3, 6: 4 };

/**
 * Reads a non-interlaced PNG file of 8-bit RGB or RGBA. A browser's decoder is not used, since it may apply color management.
 *
 * @param {Buffer} file
 * @returns {{ width: number, height: number, data: Uint8Array }} RGBA, rows from the top.
 */
export function readPng(file) {
  assert.deepEqual(file.subarray(0, 8), SIGNATURE, "this is no PNG file");
  let header;
  const parts = [];
  for (let at = 8; at < file.length; ) {
    const length = file.readUInt32BE(at);
    const type = file.toString("latin1", at + 4, at + 8);
    const body = file.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") header = { width: body.readUInt32BE(0), height: body.readUInt32BE(4), depth: body[8], colours: body[9], interlaced: body[12] };
    if (type === "IDAT") parts.push(body);
    at += length + 12;
  }
  const { width, height, depth, colours, interlaced } = header;
  const samples = SAMPLES[colours];
  assert.ok(depth === 8 && samples && !interlaced, "only plain 8-bit RGB and RGBA are read here");
  const rows = unfilter(inflateSync(Buffer.concat(parts)), width * samples, height, samples);
  const data = new Uint8Array(width * height * 4).fill(255);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let sample = 0; sample < samples; sample++) data[pixel * 4 + sample] = rows[pixel * samples + sample];
  }
  return { width, height, data };
}

/** Undoes the five filters of PNG (RFC 2083, section 6), row by row. */
function unfilter(filtered, stride, height, samples) {
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = filtered[y * (stride + 1)];
    for (let x = 0; x < stride; x++) {
      const left = x < samples ? 0 : rows[y * stride + x - samples];
      const up = y === 0 ? 0 : rows[(y - 1) * stride + x];
      const corner = y === 0 || x < samples ? 0 : rows[(y - 1) * stride + x - samples];
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      assert.notEqual(guess, undefined, "the PNG has an unknown filter");
      rows[y * stride + x] = filtered[y * (stride + 1) + 1 + x] + guess;
    }
  }
  return rows;
}

function paeth(left, up, corner) {
  const estimate = left + up - corner;
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(estimate - value));
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/**
 * The largest absolute difference per channel.
 *
 * @returns {{ red: number, green: number, blue: number, alpha: number, worst: number, at: [number, number] }}
 * @throws if the sizes differ or the pictures are empty.
 */
export function difference(actual, expected) {
  assert.deepEqual([actual.width, actual.height], [expected.width, expected.height], "the pictures differ in size");
  const { width, height } = expected;
  for (const { data } of [actual, expected]) assert.equal(data.length, width * height * 4, "a picture is not whole");
  assert.ok(width * height > 0, "the pictures are empty");
  const most = [0, 0, 0, 0];
  let at = [0, 0];
  for (let i = 0; i < expected.data.length; i++) {
    const off = Math.abs(actual.data[i] - expected.data[i]);
    if (off > Math.max(...most)) at = [(i >> 2) % width, Math.floor((i >> 2) / width)];
    most[i % 4] = Math.max(most[i % 4], off);
  }
  const [red, green, blue, alpha] = most;
  return { red, green, blue, alpha, worst: Math.max(...most), at };
}

/** Fails if any channel of any pixel differs by more than `bound` of 255. Returns the largest difference. */
export function assertAlike(actual, expected, bound, what = "the picture") {
  const found = difference(actual, expected);
  assert.ok(found.worst <= bound, `${what} is off by ${found.worst}/255 at ${found.at}, the bound is ${bound}/255: ${JSON.stringify(found)}`);
  return found.worst;
}

/** Decodes a picture returned from a page: `{ width, height, base64 }`. */
export const fromPage = ({ width, height, base64 }) => ({ width, height, data: new Uint8Array(Buffer.from(base64, "base64")) });
