/** Starting workers: the locations of their scripts, and the errors if they are missing. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { addressOf, workers } from "../build/start.js";

const BASE = "https://page.example/app/";

/** Globals of a page. `answers` are the responses by URL. Returns the started workers. */
function page(t, answers = {}) {
  const started = [];
  class Worker {
    constructor(address, options) {
      if (String(address).includes("forbidden")) throw new DOMException("The worker is forbidden.", "SecurityError");
      Object.assign(this, { address: String(address), options, terminate() {}, postMessage() {}, addEventListener() {} });
      started.push(this);
    }
  }
  const before = globalThis.fetch;
  const fetch = async (address) => {
    const found = answers[address];
    if (found === undefined) throw new TypeError("fetch failed");
    return typeof found === "number" ? new Response(null, { status: found }) : new Response(found);
  };
  Object.assign(globalThis, { Worker, fetch, location: new URL(BASE) });
  t.after(() => {
    globalThis.fetch = before;
    delete globalThis.Worker;
    delete globalThis.location;
  });
  return started;
}

/** The fatal error reported for a worker that failed to start. */
function failed(started, link) {
  return new Promise((resolve) => {
    link((message) => resolve(message.error));
    started.at(-1).onerror({ preventDefault() {} });
  });
}

test("a folder holds files as the package does; a file is itself", () => {
  const cases = [
    [undefined, undefined],
    ["lib", "https://page.example/app/lib/worker-cpu.js"],
    ["/lib/emu-0.1.0/?v=2", "https://page.example/lib/emu-0.1.0/worker-cpu.js?v=2"],
    [new URL("https://cdn.example/x/"), "https://cdn.example/x/worker-cpu.js"],
    ["my-worker.js", "https://page.example/app/my-worker.js"],
    ["blob:https://page.example/1234", "blob:https://page.example/1234"],
    [{ cpu: "a.mjs" }, "https://page.example/app/a.mjs"],
    [{ webgpu: "a.js" }, undefined],
  ];
  for (const [given, want] of cases) assert.equal(addressOf(given, "cpu", "worker-cpu.js", BASE), want, String(given));
  assert.equal(addressOf("w", "webgpu", "webgpu/emu_web_bg.wasm", BASE), "https://page.example/app/w/webgpu/emu_web_bg.wasm");
  assert.throws(() => addressOf("http://", "cpu", "worker-cpu.js", BASE), { name: "EmuError", code: "bad-request" });
});

test("workers have names of their own, and those of other origins start through a script of this one", (t) => {
  const started = page(t);
  const start = workers(undefined, BASE);
  start("cpu", () => {});
  start("webgpu", () => {});
  assert.notEqual(started[0].options.name, started[1].options.name);
  assert.match(started[0].address, /worker-cpu\.js$/);
  workers("/lib/", BASE)("webgpu", () => {});
  assert.equal(started[2].address, "https://page.example/lib/worker-webgpu.js");
  workers("https://cdn.example/", BASE)("cpu", () => {});
  assert.match(started[3].address, /^blob:/);
});

test("a worker that does not start is explained, with what to do", async (t) => {
  const script = "https://page.example/lib/worker-cpu.js";
  const glue = "https://page.example/wasm/cpu/emu_web.js";
  const answers = {};
  const started = page(t, answers);
  const why = () => failed(started, (receive) => workers("/lib/", BASE)("cpu", receive));
  const cases = [
    [{ [script]: 404 }, /started: the server answered 404 for https:\/\/page\.example\/lib\/worker-cpu\.js\. Bundlers/],
    [{ [script]: "<!doctype html><title>An app</title>" }, /worker-cpu\.js gives a web page\. Bundlers .* give options `worker` and `wasm`\.$/],
    [{ [script]: 'import*as e from"../wasm/cpu/emu_web.js";', [glue]: "<!DOCTYPE html>" }, /wasm\/cpu\/emu_web\.js gives a web page/],
    [{ [script]: "let x" }, /could not be started: worker-src/],
    [{}, /worker-cpu\.js cannot be fetched/],
  ];
  for (const [given, message] of cases) {
    for (const address of [script, glue]) delete answers[address];
    Object.assign(answers, given);
    const error = await why();
    assert.equal(error.code, "worker");
    assert.match(error.message, message);
  }
  const told = new Promise((resolve) => workers("/lib/", BASE)("cpu", ({ error }) => resolve(error)));
  started.at(-1).onerror({ preventDefault() {}, message: "x is undefined" });
  assert.equal((await told).code, "crashed");
  assert.throws(() => workers("/forbidden/", BASE)("cpu", () => {}), { code: "worker", message: /SecurityError.*Bundlers/ });
});

test("where a browser tells nothing of a worker that does not start, its files are looked at", async (t) => {
  const script = "https://page.example/lib/worker-cpu.js";
  const glue = "https://page.example/wasm/cpu/emu_web.js";
  const answers = { [script]: 'import*as e from"../wasm/cpu/emu_web.js";', [glue]: "<!DOCTYPE html>" };
  const started = page(t, answers);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const told = new Promise((resolve) => workers("/lib/", BASE)("cpu", ({ error }) => resolve(error)));
  t.mock.timers.tick(5000);
  const error = await told;
  assert.equal(error.code, "worker");
  assert.match(error.message, /emu_web\.js gives a web page/);
  // A worker that has sent a message, or whose files are valid and which only takes time, is left alone.
  const heard = [];
  workers("/lib/", BASE)("cpu", (message) => heard.push(message));
  started.at(-1).onmessage({ data: "ready" });
  answers[glue] = "let x";
  workers("/lib/", BASE)("cpu", (message) => heard.push(message));
  t.mock.timers.tick(5000);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(heard, ["ready"]);
});
