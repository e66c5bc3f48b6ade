/** Calls: results, options, order, and aborts. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Pace } from "../build/pace.js";
import { fakeModule, gated, likely, play, PNG } from "./fake-wasm.mjs";
import { ask, collect, outcome, start, textOf } from "./harness.mjs";

const never = () => new Promise(() => {});

test("each call gives what its types say", async (t) => {
  const { emu, workers } = await start(t);
  assert.equal(await emu.caption(PNG, { seed: 5, maxNewTokens: 7 }), "a picture of seed 5 and 1");
  // Absent options are `undefined`, which the engine's JSON omits.
  assert.deepEqual(JSON.parse(JSON.stringify(workers[0].seen.requests[0])), {
    task: "caption",
    text: { maxNewTokens: 7 },
    seed: 5,
  });

  const events = await collect(emu.chat(ask(), { seed: 6 }));
  assert.deepEqual(
    events.map(({ type }) => type),
    ["text", "text", "text", "text", "image", "usage"],
  );
  assert.deepEqual(
    [events[4].image.width, events[4].image.height, [...events[4].image.data], events[4].seed, events[4].flagged],
    [2, 1, [1, 2, 3, 255, 4, 5, 6, 255], 6, null],
  );
  const { seconds, firstTokenSeconds, prefillTokensPerSecond, decodeTokensPerSecond, ...counts } = events[5];
  assert.deepEqual(counts, { type: "usage", index: 0, promptTokens: 5, cachedTokens: 2, prefillTokens: 3, tokens: 4, finish: "end" });
  assert.ok(firstTokenSeconds > 0 && seconds >= firstTokenSeconds, `${firstTokenSeconds} of ${seconds} s`);
  assert.ok(Math.abs(prefillTokensPerSecond * firstTokenSeconds - 3) < 1e-9);
  assert.ok(decodeTokensPerSecond > 0);

  const seen = [];
  const picture = await emu.generateImage(["a cat like", PNG], {
    seed: 7,
    previewEvery: 1,
    onProgress: (event) => seen.push(event),
  });
  assert.deepEqual([picture.seed, picture.flagged, picture.image.width], [7, null, 2]);
  assert.deepEqual(
    seen.filter(({ phase }) => phase === "denoise").map(({ step, steps, preview }) => [step, steps, preview.width]),
    [1, 2, 3, 4].map((n) => [n, 4, 2]),
  );
  assert.deepEqual(workers[0].seen.requests.at(-1).parts, [{ text: "a cat like" }, { image: 0 }]);

  assert.deepEqual(
    (await emu.embed(PNG)).map((row) => [...row]),
    [
      [1, 2],
      [3, 4],
    ],
  );
  assert.deepEqual(await emu.memory(), { device: 1000, wasm: 65536 });
  const { weightBytes, tokenWeightBytes, launches } = await emu.costs();
  assert.ok(weightBytes > 0 && weightBytes % 12 === 0, "of the calls so far");
  assert.deepEqual([tokenWeightBytes, launches], [4, 0]);
  assert.equal(emu.device.name, "fake");
});

test("options of sampling and stop texts reach the engine, which says where it stopped", async (t) => {
  const { emu, workers } = await start(t);
  const [{ seen }] = workers;
  const options = { minP: 0.05, presencePenalty: 0.5, frequencyPenalty: -0.5, logitBias: { 5: -100, 7: 1.5 }, stop: "ture of" };
  const events = await collect(emu.chat(ask(), { ...options, seed: 2, images: false }));
  assert.equal(events.map(({ text = "" }) => text).join(""), "a pic");
  assert.equal(events.at(-1).finish, "stop");
  const sent = (at) => JSON.parse(JSON.stringify(seen.requests.at(at).text));
  assert.deepEqual(sent(-1), { ...options, stop: ["ture of"] });
  assert.equal(await emu.caption(PNG, { stop: ["never", " of"], seed: 2 }), "a picture");
  assert.deepEqual(sent(-1), { stop: ["never", " of"] });
  const requests = seen.requests.length;
  for (const stop of ["", ["a", ""], [5]]) {
    const refused = { name: "EmuError", code: "bad-request", message: /stop text/ };
    await assert.rejects(emu.caption(PNG, { stop }), refused);
    await assert.rejects(collect(emu.chat(ask(), { stop })), refused);
  }
  assert.equal(seen.requests.length, requests);
});

test("log-probabilities come with the text of their tokens", async (t) => {
  const { emu, workers } = await start(t);
  const told = async (options) => (await collect(emu.chat(ask(), { seed: 2, images: false, ...options }))).slice(0, -1);
  const pieces = ["a", " picture", " of seed 2", " and 1"];
  assert.deepEqual(await told({ topLogprobs: 2 }), pieces.map((text) => ({ type: "text", index: 0, text, logprobs: [likely(text, 2)] })));
  assert.deepEqual((await told({ logprobs: true })).map(({ logprobs }) => logprobs), pieces.map((text) => [likely(text, 0)]));
  const wanted = workers[0].seen.requests.map(({ text }) => text.topLogprobs);
  assert.deepEqual(wanted, [2, 0]);
  assert.ok((await told({ logprobs: false })).every((event) => !("logprobs" in event)));
});

test("several answers have an index, a usage each, and consecutive seeds", async (t) => {
  const { emu, workers } = await start(t);
  const events = await collect(emu.chat(ask(), { n: 3, seed: 5 }));
  for (const index of [0, 1, 2]) {
    const own = events.filter((event) => event.index === index);
    assert.deepEqual(own.map(({ type }) => type), ["text", "text", "text", "text", "image", "usage"]);
    assert.equal(own.map(({ text = "" }) => text).join(""), `a picture of seed ${5 + index} and 1`);
    assert.equal(own[4].seed, 5 + index);
  }
  assert.deepEqual(events.map(({ index }) => index), [0, 1, 2].flatMap((index) => Array(6).fill(index)));
  // The prompt is sent once.
  assert.equal(workers[0].seen.requests.length, 1);
});

test("rates are those of the phases, without pictures in between", () => {
  let now = 0;
  const pace = new Pace(() => now);
  const at = (time, type) => ((now = time), pace.take({ type }));
  at(100, "prefill");
  at(500, "text");
  at(501, "decode");
  at(600, "decode");
  at(3000, "denoise");
  at(5000, "image");
  at(5100, "text");
  now = 5200;
  assert.deepEqual(pace.end({ prefillTokens: 30, tokens: 3 }), {
    seconds: 5.2,
    firstTokenSeconds: 0.5,
    prefillTokensPerSecond: 60,
    decodeTokensPerSecond: 2 / 0.2,
  });
  // The next answer begins there.
  at(5300, "decode");
  now = 5400;
  const next = pace.end({ prefillTokens: 1, tokens: 1 });
  assert.deepEqual([next.firstTokenSeconds, next.seconds, next.decodeTokensPerSecond], [0.1, 0.2, null]);
  // Without a token there are no rates.
  const none = pace.end({ prefillTokens: 9, tokens: 0 });
  assert.deepEqual([none.firstTokenSeconds, none.prefillTokensPerSecond, none.decodeTokensPerSecond], [null, null, null]);
});

test("a beam search draws nothing, and a seed is chosen where none is given", async (t) => {
  const { emu, workers } = await start(t);
  await collect(emu.chat(ask(), { beams: 4 }));
  await collect(emu.chat(ask()));
  const [beams, single] = workers[0].seen.requests;
  assert.deepEqual([beams.images, single.images], [false, true]);
  assert.ok(Number.isInteger(single.seed) && single.seed !== beams.seed);
  await assert.rejects(emu.caption(PNG, { seed: -1 }), { code: "bad-request" });
  await assert.rejects(emu.caption(PNG, { seed: 0.5 }), { code: "bad-request" });
});

test("two calls at once are done one after the other, in order", async (t) => {
  const { emu, workers } = await start(t);
  const ended = [];
  const calls = [1, 2, 3].map((seed) => emu.caption(PNG, { seed }).then((text) => ended.push(text)));
  await Promise.all(calls);
  assert.deepEqual(
    ended,
    [1, 2, 3].map((seed) => `a picture of seed ${seed} and 1`),
  );
  assert.deepEqual(
    workers[0].seen.requests.map(({ seed }) => seed),
    [1, 2, 3],
  );
});

test("an error of the engine rejects its call and no other", async (t) => {
  const fake = fakeModule({
    run: async (request, ...rest) => {
      if (request.seed === 1) throw { code: "too-long", message: "The prompt is too long. Shorten it." };
      await play(request, ...rest);
    },
  });
  const { emu } = await start(t, { fakes: [fake] });
  const [bad, good] = [emu.caption(PNG, { seed: 1 }), emu.caption(PNG, { seed: 2 })];
  await assert.rejects(bad, { name: "EmuError", code: "too-long", message: "The prompt is too long. Shorten it." });
  assert.match(await good, /seed 2/);
});

test("an abort rejects at once, in every phase, and the next call works", async (t) => {
  const fake = gated();
  const { emu } = await start(t, { fakes: [fake] });

  // Before the call starts.
  await assert.rejects(emu.caption(PNG, { signal: AbortSignal.abort() }), { name: "AbortError" });

  // During a step that does not end.
  const stop = new AbortController();
  const running = emu.caption(PNG, { signal: stop.signal, seed: 1 });
  const waiting = emu.caption(PNG, { seed: 2 });
  await fake.arrived();
  const begun = performance.now();
  stop.abort(new Error("whatever the reason"));
  await assert.rejects(running, { name: "AbortError" });
  assert.ok(performance.now() - begun < 50);

  // While it waits in the queue.
  const queued = new AbortController();
  const third = emu.caption(PNG, { signal: queued.signal, seed: 3 });
  queued.abort();
  await assert.rejects(third, { name: "AbortError" });

  fake.release();
  await fake.arrived();
  fake.release();
  assert.match(await waiting, /seed 2/);
  assert.deepEqual(
    fake.seen.requests.map(({ seed }) => seed),
    [1, 2],
  );
});

test("an aborted run is stopped at its next step", async (t) => {
  const stop = new AbortController();
  let steps = 0;
  const fake = fakeModule({
    run: async (request, pictures, tell, engine) => {
      if (request.seed !== 1) return play(request, pictures, tell, engine);
      while (steps < 1000) {
        steps += 1;
        if (steps === 5) stop.abort();
        await tell({ type: "decode", tokens: steps });
      }
    },
  });
  const { emu } = await start(t, { fakes: [fake] });
  await assert.rejects(emu.caption(PNG, { signal: stop.signal, seed: 1 }), { name: "AbortError" });
  assert.match(await emu.caption(PNG, { seed: 2 }), /seed 2/);
  assert.ok(steps < 10, `${steps} steps`);
});

test("leaving a chat's loop stops it; its signal ends it with an AbortError", async (t) => {
  const { emu, workers } = await start(t);
  for await (const event of emu.chat(ask(), { seed: 1 })) {
    assert.equal(event.text, "a");
    break;
  }
  const stop = new AbortController();
  const some = [];
  await assert.rejects(
    async () => {
      for await (const event of emu.chat(ask(), { seed: 2, signal: stop.signal })) {
        some.push(event);
        stop.abort();
      }
    },
    { name: "AbortError" },
  );
  assert.ok(some.length >= 1);
  assert.equal(textOf(await collect(emu.chat(ask(), { seed: 3 }))), "a picture of seed 3 and 1");
  assert.equal(workers.length, 1);
});

test("reset ends every call and keeps what is loaded", async (t) => {
  const fake = gated();
  const { emu, workers } = await start(t, { fakes: [fake] });
  const calls = [1, 2].map((seed) => outcome(emu.caption(PNG, { seed })));
  await fake.arrived();
  const reset = emu.reset();
  fake.release();
  await reset;
  assert.deepEqual(await Promise.all(calls), ["AbortError", "AbortError"]);
  const next = emu.caption(PNG, { seed: 3 });
  await fake.arrived();
  fake.release();
  assert.match(await next, /seed 3/);
  assert.equal(workers.length, 1);
});

test("dispose ends every call, gives back the engine, and stays so", async (t) => {
  const fake = gated();
  const { emu, workers } = await start(t, { fakes: [fake] });
  const call = outcome(emu.caption(PNG));
  await fake.arrived();
  const disposed = emu.dispose();
  fake.release();
  await disposed;
  assert.equal(await call, "disposed");
  assert.deepEqual([workers[0].alive, fake.seen.freed, workers[0].destroyed], [false, 1, 1]);
  await assert.rejects(emu.caption(PNG), { code: "disposed" });
  await assert.rejects(emu.memory(), { code: "disposed" });
  await assert.rejects(emu.reset(), { code: "disposed" });
  await emu.dispose();
});

test("a WASM module of another version is refused", async (t) => {
  const fake = fakeModule({ module: { version: () => "9.9.9" } });
  await assert.rejects(start(t, { fakes: [fake] }), { code: "version", message: /9\.9\.9/ });
});

test("a module that cannot be started says what to check", async (t) => {
  const fake = fakeModule({ module: { default: () => Promise.reject(new TypeError("404")) } });
  await assert.rejects(start(t, { fakes: [fake] }), { code: "worker", message: /wasm folder/ });
});

test("a load is aborted at once, and ends its worker", async (t) => {
  const stop = new AbortController();
  const fake = fakeModule({ module: { selfTest: () => (setTimeout(() => stop.abort(), 5), never()) } });
  const workers = [];
  await assert.rejects(start(t, { fakes: [fake], signal: stop.signal, workers }), { name: "AbortError" });
  assert.deepEqual(
    workers.map(({ alive }) => alive),
    [false],
  );
  await assert.rejects(start(t, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("a store that is full, or cannot be opened, is warned of once and got along without", async (t) => {
  const full = new DOMException("full", "QuotaExceededError");
  const broken = {
    sizes: async () => new Map(),
    readText: async () => null,
    writeText: () => Promise.reject(full),
    exclusive: (_n, _s, work) => work(),
    remove: async () => {},
  };
  for (const [store, code] of [
    [broken, "cache-full"],
    [() => Promise.reject(new DOMException("denied", "SecurityError")), "cache-unavailable"],
  ]) {
    const warnings = [];
    const onEvent = (event) => event.phase === "warning" && warnings.push(event.code);
    const { emu } = await start(t, { store, cache: true, onEvent });
    assert.deepEqual(warnings, [code]);
    assert.match(emu.support.reasons.join(" "), /kept for the next visit/);
    assert.match(await emu.caption(PNG, { seed: 1 }), /seed 1/);
  }
});

test("a pack without a decoder cannot draw, and says so before anything runs", async (t) => {
  const { emu, workers } = await start(t);
  emu.support.model.draws = null;
  await assert.rejects(emu.generateImage("a cat"), { code: "no-decoder" });
  emu.support.model.draws = 64;
  emu.support.tasks.find(({ task }) => task === "draw").fits = false;
  await assert.rejects(emu.generateImage("a cat"), { code: "too-large" });
  assert.equal(workers[0].seen.requests.length, 0);
});

test("a chat with a signal works where AbortSignal.any is missing, and leaves no listener behind", async (t) => {
  const { any } = AbortSignal;
  delete AbortSignal.any;
  t.after(() => Object.assign(AbortSignal, { any }));
  const { emu } = await start(t);
  const { signal } = new AbortController();
  let listeners = 0;
  const [add, remove] = [signal.addEventListener, signal.removeEventListener];
  signal.addEventListener = (...args) => (listeners++, add.apply(signal, args));
  signal.removeEventListener = (...args) => (listeners--, remove.apply(signal, args));
  assert.match(textOf(await collect(emu.chat(ask(), { signal }))), /a picture/);
  assert.equal(listeners, 0);

  const stop = new AbortController();
  const stream = emu.chat(ask(), { signal: stop.signal });
  await stream.next();
  stop.abort();
  await assert.rejects(collect(stream), { name: "AbortError" });
  assert.match(await emu.caption(PNG, { seed: 4 }), /seed 4/);
});

test("an option that cannot be sent is a bad request, and the next call works", async (t) => {
  const { emu } = await start(t);
  await assert.rejects(emu.caption(PNG, { maxNewTokens: () => 7 }), { name: "EmuError", code: "bad-request", message: /cannot be sent/ });
  assert.match(await emu.caption(PNG, { seed: 4 }), /seed 4/);
});

test("a request that cannot run is refused before anything is loaded for it", async (t) => {
  const { emu, workers } = await start(t, {
    refuses: (task, { beams = 1, width = 64 }) => (beams > 4 || width > 512 ? `To ${task} takes too much. Ask for less.` : null),
  });
  const refused = { name: "EmuError", code: "too-large" };
  await assert.rejects(emu.caption(PNG, { beams: 5 }), { ...refused, message: /^To caption takes/ });
  await assert.rejects(collect(emu.chat(ask(), { beams: 5 })), { ...refused, message: /^To caption/ });
  await assert.rejects(emu.generateImage("a cat", { width: 1024 }), { ...refused, message: /^To draw/ });
  assert.equal(workers[0].seen.requests.length, 0);
  assert.ok(!workers[0].seen.finished.includes("decoder"));
  assert.match(await emu.caption(PNG, { beams: 4, seed: 4 }), /seed 4/);
});

test("a picture that only the page can decode is asked of it, once for each", async (t) => {
  const svg = new TextEncoder().encode("<svg xmlns='http://www.w3.org/2000/svg'/>");
  const asked = [];
  globalThis.createImageBitmap = () => Promise.reject(new DOMException("x", "InvalidStateError"));
  t.after(() => delete globalThis.createImageBitmap);
  const { emu, workers } = await start(t, { draw: async (bytes) => void asked.push(new TextDecoder().decode(bytes)) ?? null });
  await emu.caption(svg, { seed: 1 });
  await emu.caption(new Blob([svg]), { seed: 2 });
  assert.deepEqual(asked.map((text) => text.slice(0, 4)), ["<svg", "<svg"]);
  assert.equal(workers[0].seen.requests.length, 2, "what the page cannot decode either, the engine names");
});

test("a module that does not start says why: no module there, a policy, or its own words", async (t) => {
  const fails = (message) => fakeModule({ module: { default: () => Promise.reject(new Error(message)) } });
  await assert.rejects(start(t, { fakes: [fails("bad magic")], device: "cpu" }), { code: "worker", message: /\(?Error: bad magic\)?\. Check/ });

  const page = "https://page.example/emu_web_bg.wasm?v=1";
  const fetch = async () => new Response("<!doctype html>");
  await assert.rejects(start(t, { fakes: [fails("expected magic word")], device: "cpu", wasm: () => page, fetch }), {
    code: "worker",
    message: /started: https:\/\/page\.example\/emu_web_bg\.wasm gives a web page\. Check .* option `wasm`/,
  });

  const { Module } = WebAssembly;
  WebAssembly.Module = class {
    constructor() {
      throw new WebAssembly.CompileError("violates the following Content Security Policy directive");
    }
  };
  t.after(() => Object.assign(WebAssembly, { Module }));
  await assert.rejects(start(t, { fakes: [fails("blocked")], device: "cpu" }), {
    code: "worker",
    message: /content security policy forbids WebAssembly\. Add 'wasm-unsafe-eval' to script-src/,
  });
});
