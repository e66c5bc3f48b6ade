/** The hook, in the real React and its renderer for documents. The component renders text only, so a container needs no browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { gated, fakeModule } from "./fake-wasm.mjs";
import { ask, collect, outcome, start, textOf } from "./harness.mjs";

/** A container with what React asks of one whose components render nothing. */
function fakeContainer() {
  const node = (more) => ({ addEventListener() {}, removeEventListener() {}, ...more });
  const document = node({ nodeType: 9, activeElement: null });
  document.ownerDocument = document;
  document.defaultView = globalThis;
  return node({ nodeType: 1, nodeName: "DIV", tagName: "DIV", namespaceURI: "http://www.w3.org/1999/xhtml", ownerDocument: document, firstChild: null, textContent: "" });
}
Object.assign(globalThis, { window: globalThis, HTMLIFrameElement: class {} });
globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const { act, createElement, Fragment, StrictMode } = await import("react");
const { createRoot } = await import("react-dom/client");
const { renderToString } = await import("react-dom/server");
const { useEmu } = await import("../build/react.js");

const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

/** Mounts a component with the hook. `seen` has the result of each render; `loads` the options of each load. */
async function mount(t, { pack = "models/a", strict = false, fake = fakeModule(), load, ...options } = {}) {
  const seen = [];
  const loads = [];
  const defaultLoad = async (pack, { signal, onProgress }) => {
    loads.push({ pack, signal });
    const { emu } = await start(t, { fakes: [fake], signal, onEvent: onProgress });
    loads.at(-1).emu = emu;
    return emu;
  };
  function Component({ pack, ...options }) {
    seen.push(useEmu(pack, { load: load ?? defaultLoad, ...options }));
    return null;
  }
  const root = createRoot(fakeContainer());
  const element = (props) => createElement(strict ? StrictMode : Fragment, null, createElement(Component, props));
  const render = (props) => act(async () => root.render(element(props)));
  await render({ pack, ...options });
  const latest = () => seen.at(-1);
  const until = async (condition) => {
    for (let i = 0; i < 2000 && !condition(latest()); i++) await act(turn);
    assert.ok(condition(latest()), JSON.stringify({ ...latest(), emu: latest().emu && "loaded" }));
  };
  let mounted = true;
  const unmount = () => act(async () => mounted && ((mounted = false), root.unmount()));
  t.after(unmount);
  return { seen, loads, latest, until, render, unmount };
}
const ready = ({ ready }) => ready;
const isDisposed = async (emu) => (await outcome(emu.memory())) === "disposed";

test("a model is loaded with progress, answers, and is disposed of at unmount", async (t) => {
  const told = [];
  const { seen, loads, latest, until, unmount } = await mount(t, { onProgress: (progress) => told.push(progress.phase) });
  assert.deepEqual({ ...seen[0], chat: 0, reload: 0 }, { emu: null, ready: false, progress: null, error: null, chat: 0, reload: 0 });
  await until(ready);
  const { emu, progress, error, chat } = latest();
  assert.equal(error, null);
  assert.equal(progress.phase, "upload");
  assert.ok(seen.some(({ progress }) => progress?.phase === "compile") && told.includes("download"));
  assert.equal(textOf(await collect(chat(ask(), { seed: 3 }))), "a picture of seed 3 and 1");
  assert.equal(chat, seen[0].chat, "the function stays the same");
  assert.equal(loads.length, 1);
  await unmount();
  assert.ok(await isDisposed(emu));
});

test("the strict mode's double effects load once", async (t) => {
  const { loads, until, latest, unmount } = await mount(t, { strict: true });
  await until(ready);
  assert.equal(loads.length, 1);
  assert.ok(!(await isDisposed(latest().emu)));
  await unmount();
  assert.ok(await isDisposed(loads[0].emu));
});

test("an unmount in the middle of a load aborts it, and nothing is left", async (t) => {
  let went;
  const gone = new Promise((resolve) => (went = resolve));
  const slow = fakeModule({ module: { selfTest: () => new Promise(() => went()) } });
  const { seen, loads, unmount } = await mount(t, { fake: slow });
  await act(() => gone);
  const renders = seen.length;
  await unmount();
  assert.ok(loads[0].signal.aborted);
  await act(turn);
  assert.equal(seen.length, renders);
});

test("a model that arrives after the unmount is disposed of", async (t) => {
  let arrive;
  const { emu } = await start(t);
  const { unmount } = await mount(t, { load: () => new Promise((resolve) => (arrive = () => resolve(emu))) });
  await unmount();
  arrive();
  await turn();
  assert.ok(await isDisposed(emu));
});

test("an unmount aborts a chat, and its own signal does too", async (t) => {
  const fake = gated();
  const { latest, until, unmount } = await mount(t, { fake });
  await assert.rejects(latest().chat(ask()).next(), { name: "EmuError", code: "bad-request", message: /not loaded yet/ });
  await until(ready);
  const stop = new AbortController();
  const stopped = outcome(collect(latest().chat(ask(), { signal: stop.signal })));
  await fake.arrived();
  stop.abort();
  assert.equal(await stopped, "AbortError");
  assert.equal(await outcome(collect(latest().chat(ask(), { signal: AbortSignal.abort() }))), "AbortError");
  fake.release();
  const running = outcome(collect(latest().chat(ask(), { seed: 2 })));
  await fake.arrived();
  await unmount();
  assert.equal(await running, "AbortError");
});

test("a failed load gives its error, and reload tries again", async (t) => {
  let tries = 0;
  const { emu } = await start(t);
  const load = async () => {
    if (tries++ === 0) throw Object.assign(new Error("The network failed. Try again."), { code: "fetch" });
    return emu;
  };
  const { latest, until } = await mount(t, { load });
  await until(({ error }) => error);
  assert.deepEqual([latest().error.code, latest().ready], ["fetch", false]);
  await act(async () => latest().reload());
  await until(ready);
  assert.equal(latest().error, null);
  assert.equal(tries, 2);
});

test("another pack or device replaces the model; a new object for the same pack does not; null unloads it", async (t) => {
  const files = { "emu.json": "https://a.b/emu.json" };
  const { loads, latest, until, render } = await mount(t, { pack: { url: "npm:x", files } });
  await until(ready);
  const first = latest().emu;
  await render({ pack: { url: "npm:x", files: { ...files } } });
  assert.equal(latest().emu, first);
  await render({ pack: { url: "npm:x", files }, device: "cpu" });
  await until(({ emu }) => emu && emu !== first);
  assert.ok(await isDisposed(first));
  await render({ pack: new URL("https://a.b/other/") });
  await until(() => loads.length === 3 && loads[2].emu && ready(latest()));
  const last = latest().emu;
  await render({ pack: null });
  assert.deepEqual([latest().emu, latest().ready, latest().progress], [null, false, null]);
  assert.ok(await isDisposed(last));
  assert.equal(loads.length, 3);
});

test("on a server nothing is loaded", () => {
  function Component() {
    const { ready, emu } = useEmu("models/a", { load: () => assert.fail("loaded on a server") });
    return `${ready} ${emu}`;
  }
  assert.equal(renderToString(createElement(Component)), "false null");
});
