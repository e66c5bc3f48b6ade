/** Tests of the test helpers: each must detect faults. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { sentTwice } from "../../server/faults.mjs";
import { assertAlike, difference, fromPage, readPng } from "../lib/pictures.mjs";
import { across, PICTURES } from "../lib/stage.mjs";
import { mainThreadTasks } from "../lib/trace.mjs";

const grey = (width, height, value = 100) => ({ width, height, data: new Uint8Array(width * height * 4).fill(value) });

test("a picture that is off in one channel of one pixel is found", () => {
  assert.equal(assertAlike(grey(5, 3), grey(5, 3), 0), 0);
  for (let at = 0; at < 60; at++) {
    const other = grey(5, 3);
    other.data[at] = at % 2 ? 103 : 97;
    const found = difference(other, grey(5, 3));
    const channels = [found.red, found.green, found.blue, found.alpha];
    assert.deepEqual(channels, [0, 1, 2, 3].map((channel) => (channel === at % 4 ? 3 : 0)));
    assert.deepEqual(found.at, [(at >> 2) % 5, Math.floor((at >> 2) / 5)]);
    assert.throws(() => assertAlike(other, grey(5, 3), 2), /off by 3\/255/);
    assert.equal(assertAlike(other, grey(5, 3), 3), 3);
  }
});

test("pictures of other sizes, of nothing, or not whole are never alike", () => {
  assert.throws(() => difference(grey(5, 3), grey(3, 5)), /differ in size/);
  assert.throws(() => difference(grey(0, 0), grey(0, 0)), /empty/);
  assert.throws(() => difference({ ...grey(5, 3), data: new Uint8Array(4) }, grey(5, 3)), /not whole/);
});

across("PNG files are read as the browser reads them", {}, async (stage) => {
  for (const name of ["fox.png", "whale-bed.png", "contact-sheet.png"]) {
    const own = readPng(await readFile(join(PICTURES, name)));
    const shown = await stage.page.evaluate(async (name) => {
      const blob = new Blob([await lab.bytes(`/pictures/${name}`)], { type: "image/png" });
      const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      return lab.pixels(context.getImageData(0, 0, bitmap.width, bitmap.height));
    }, name);
    assertAlike(fromPage(shown), own, 0, name);
  }
});

across("a page is waited for longer than Puppeteer's 30 s", {}, async ({ page }) => assert.ok(page.getDefaultTimeout() >= 300_000));

test("bytes that are sent twice are counted", () => {
  const spans = (...pairs) => pairs.map(([from, to]) => ({ path: "/a/shard", from, to }));
  assert.equal(sentTwice(spans([0, 10], [10, 20]), "shard"), 0);
  assert.equal(sentTwice(spans([0, 10], [4, 20]), "shard"), 6);
  assert.equal(sentTwice(spans([4, 20], [0, 10], [0, 20]), "shard"), 20 + 6);
  assert.equal(sentTwice(spans([0, 10], [4, 20]), "other"), 0);
});

test("a long task of the page's main thread is found in a trace, and no other thread's", () => {
  const task = (pid, tid, tdur, dur = tdur) => ({ name: "RunTask", cat: "toplevel", ph: "X", ts: 0, pid, tid, tdur, dur });
  const mark = { cat: "blink.user_timing", name: "here", ph: "R", pid: 1, tid: 2, ts: 0 };
  const trace = { traceEvents: [task(1, 2, 10_000), task(1, 2, 60_000, 90_000), task(1, 3, 900_000), task(2, 2, 900_000), mark] };
  assert.deepEqual(mainThreadTasks(trace, "here").map(({ cpu, wall }) => [cpu, wall]), [[10, 10], [60, 90]]);
  assert.throws(() => mainThreadTasks(trace, "elsewhere"), /no mark/);
  assert.throws(() => mainThreadTasks({ traceEvents: [mark] }, "here"), /no tasks/);
  assert.throws(() => mainThreadTasks({ traceEvents: [mark, { ...task(1, 2, 1), tdur: undefined }] }, "here"), /CPU time/);
});
