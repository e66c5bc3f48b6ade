// @ts-check
/* The messages built from text and attachments; without a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

/** A built module, with the types of its source. @param {string} name @returns {Promise<any>} */
const built = (name) => import(String(new URL(`../dist/${name}.js`, import.meta.url)));
/** @type {typeof import("../src/errors.js")} */
const { explain, PageError } = await built("errors");
/** @type {typeof import("../src/format.js")} */
const { bytes, bytesOf, plural, seconds } = await built("format");
/** @type {typeof import("../src/prompt.js")} */
const { contextFor, latestPictures, messages, parts, pieces } = await built("prompt");

/** @typedef {import("../src/prompt.js").Attachment} Attachment */

/** @param {string} name @param {"image" | "video"} [kind] @returns {Attachment} */
const attachment = (name, kind = "image") => ({ kind, name, blobs: [new Blob([name]), new Blob([name])].slice(0, kind === "video" ? 2 : 1), url: "", width: 1, height: 1 });
const [a, b, film] = /** @type {const} */ ([attachment("a"), attachment("b"), attachment("film", "video")]);
/** @param {readonly any[]} list */
const names = (list) => list.map((piece) => (typeof piece === "string" ? piece : piece.name));

test("pictures without marks come before the text, videos before pictures", () => {
  assert.deepEqual(names(pieces("what?", [a, film, b])), ["film", "a", "b", "what?"]);
  assert.deepEqual(names(pieces("", [a])), ["a"]);
  assert.deepEqual(names(pieces("hello", [])), ["hello"]);
});

test("marks are filled in order and keep the text around them", () => {
  assert.deepEqual(names(pieces("<image> a box <image> a cat <image>", [a, b, a])), ["a", " a box ", "b", " a cat ", "a"]);
  assert.deepEqual(names(pieces("x <video> y <image>", [a, film])), ["x ", "film", " y ", "a"]);
  assert.deepEqual(names(pieces("then <video>", [a, film])), ["a", "then ", "film"]);
});

test("marks that do not match say so", () => {
  for (const [text, given] of /** @type {[string, Attachment[]][]} */ ([["<image>", []], ["<image> <image>", [a]], ["<video>", [a]]])) {
    assert.throws(() => pieces(text, given), (error) => error instanceof PageError && error.code === "marks");
  }
});

test("parts are those of the package", () => {
  assert.deepEqual(parts(["x", a, film]), [
    { type: "text", text: "x" },
    { type: "image", image: a.blobs[0] },
    { type: "video", frames: film.blobs },
  ]);
});

test("a question is about the latest pictures", () => {
  const past = [{ asked: [a, "?"], answered: ["a box"] }, { asked: ["and?"], answered: ["yes"] }];
  assert.deepEqual(names(latestPictures(past)), ["a"]);
  assert.deepEqual(names(latestPictures([...past, { asked: ["draw"], answered: [b] }])), ["b"]);
  // The last picture of a series is its subject.
  assert.deepEqual(names(latestPictures([{ asked: [a, " one ", b], answered: ["two"] }])), ["b"]);
  assert.deepEqual(names(latestPictures([{ asked: [a, b, "which?"], answered: [] }])), ["a", "b"]);
  assert.deepEqual(latestPictures([]), []);
});

test("a small model is shown one message, a large one or one that converses the conversation", () => {
  /** @param {number} download @param {boolean} converses */
  const told = (download, converses) => {
    const model = { name: "x", license: "MIT", attribution: "", imageSize: 64, draws: null, checks: false, converses };
    return { model, plan: [{ component: /** @type {const} */ ("lm"), download, resident: download, cached: 0 }] };
  };
  assert.deepEqual([told(4e6, false), told(92e6, true), told(255e6, false), told(7e9, false), null].map(contextFor), ["pictures", "conversation", "pictures", "conversation", "pictures"]);
  const past = [{ asked: [a, "what?"], answered: ["a box"] }, { asked: ["lost"], answered: [] }];
  assert.deepEqual(messages(past, ["and?"], [a], "pictures"), [{ role: "user", content: parts([a, "and?"]) }]);
  assert.deepEqual(messages(past, ["and?"], [a], "conversation"), [
    { role: "user", content: parts([a, "what?"]) },
    { role: "assistant", content: [{ type: "text", text: "a box" }] },
    { role: "user", content: [{ type: "text", text: "and?" }] },
  ]);
});

test("what was drawn is not shown to the model again, only what was said of it", () => {
  const past = [
    { asked: ["draw a dog"], answered: [b, "I drew a dog."] },
    { asked: ["a cat"], answered: [b] },
  ];
  assert.deepEqual(messages(past, ["now on green"], [], "conversation"), [
    { role: "user", content: [{ type: "text", text: "draw a dog" }] },
    { role: "assistant", content: [{ type: "text", text: "I drew a dog." }] },
    { role: "user", content: [{ type: "text", text: "now on green" }] },
  ]);
});

test("errors are told in two sentences", () => {
  const coded = Object.assign(new Error("The file x.safetensors is too short. Load it again."), { code: "short-file" });
  assert.deepEqual(explain(coded), { code: "short-file", wrong: "The file x.safetensors is too short.", advice: "Load it again." });
  const bare = explain(new TypeError("x is undefined"));
  assert.equal(bare.wrong, "Something unexpected went wrong: x is undefined.");
  assert.match(bare.advice, /reload/);
  assert.equal(explain("odd").code, "unexpected");
});

test("numbers are readable", () => {
  assert.deepEqual([0, 999, 9_845_432, 19_143_760, 123e6, 999_600, 7.1e9].map(bytes), ["0 bytes", "999 bytes", "9.8 MB", "19.1 MB", "123 MB", "1.0 MB", "7.1 GB"]);
  assert.equal(bytesOf(4.1e6, 9.8e6), "4.1 of 9.8 MB");
  assert.equal(bytesOf(900e3, 9.8e6), "900 kB of 9.8 MB");
  assert.deepEqual([0.044, 1.26, 12.3, 125].map(seconds), ["0.04 s", "1.3 s", "12 s", "2 min 5 s"]);
  assert.deepEqual([plural(1, "token"), plural(1200, "token")], ["1 token", "1,200 tokens"]);
});

test("progress is one story, and its times add up", async () => {
  /** @type {typeof import("../src/tracker.js")} */
  const { Tracker } = await built("tracker");
  const tracker = new Tracker();
  tracker.clear();
  const started = performance.now();
  /** @type {import("../src/tracker.js").News} */
  const compile = { phase: "compile", done: 1, total: 4 };
  /** @param {number} loaded @returns {import("../src/tracker.js").News} */
  const download = (loaded) => ({ phase: "download", component: "lm", loaded, total: 4e6, fetched: loaded, loadedAll: loaded, totalAll: 4e6 });
  await new Promise((resolve) => setTimeout(resolve, 30));
  tracker.take(download(1e6));
  tracker.take(compile);
  // Work beside a download is not shown until the download ends.
  assert.deepEqual(tracker.describe(compile), { text: "Downloading the model", detail: "1.0 of 4.0 MB", fraction: 0.25 });
  tracker.take(download(4e6));
  assert.deepEqual(tracker.describe(compile), { text: "Preparing the device", detail: "1 of 4", fraction: 0.25 });
  const sum = [...tracker.times.values()].reduce((total, ms) => total + ms, 0);
  assert.ok(sum >= 29 && sum <= performance.now() - started, `${sum} ms`);
  // An interrupted download does not affect the next call.
  tracker.take(download(1e6));
  tracker.begin();
  assert.equal(tracker.describe({ phase: "prefill", tokens: 1 }).detail, "1 token");
});
