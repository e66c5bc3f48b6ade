/** Workers that die, lost devices, insufficient machines. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { absent, BROWSERS, launch } from "../lib/browsers.mjs";
import * as native from "../lib/native.mjs";
import { assertAlike, fromPage } from "../lib/pictures.mjs";
import { changedPack } from "../lib/project.mjs";
import { across, PACK, picture, Stage } from "../lib/stage.mjs";

const REQUEST = "a fox on a blue background";
const [FOX] = await native.captions(PACK, [picture("fox.png")]);
const works = async (stage) =>
  assert.equal(await stage.page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png"))), FOX);

/** Fault to inject per device, and the code of the resulting error. */
const FAULTS = { webgpu: ["device-lost", "device-lost"], cpu: ["panic", "crashed"] };

across("a worker that dies costs one call, and with retry not even that", { devices: ["cpu", "webgpu"] }, async (stage, t) => {
  const { page, device } = stage;
  const [fault, code] = FAULTS[device];
  await stage.load();

  await t.test("while decoding", async () => {
    const { error, phases } = await page.evaluate(async (fault) => {
      const fox = await lab.bytes("/pictures/fox.png");
      const options = { images: false, temperature: 20, seed: 7, maxNewTokens: 400 };
      return lab.during("decode", 3, () => lab.provoke(lab.emu, fault), (onProgress) => lab.chat([fox, "what is this?"], { ...options, onProgress }));
    }, fault);
    assert.deepEqual([error?.name, error?.code], ["EmuError", code]);
    assert.match(error.message, /\. .+\.$/);
    assert.ok(phases.filter((phase) => phase === "decode").length < 400);
    await works(stage);
  });

  await t.test("while denoising", async () => {
    const { error, phases } = await page.evaluate(
      (fault, request) => lab.during("denoise", 1, () => lab.provoke(lab.emu, fault), (onProgress) => lab.draw(request, { seed: 1, steps: 4, onProgress })),
      fault,
      REQUEST,
    );
    assert.deepEqual([error?.name, error?.code], ["EmuError", code]);
    assert.ok(!phases.includes("decode-image"));
  });

  await t.test("while denoising, again, in the next call, with retry: the picture of the same seed comes", async (t) => {
    const steps = 2;
    const { value, error, phases } = await page.evaluate(
      (fault, request, steps) =>
        lab.during("denoise", 1, () => lab.provoke(lab.emu, fault), (onProgress) => lab.draw(request, { seed: 1, steps, retry: true, onProgress })),
      fault,
      REQUEST,
      steps,
    );
    assert.equal(error, undefined);
    assert.ok(phases.includes("warning"));
    // The weights were loaded from the cache.
    assert.ok(phases.lastIndexOf("upload") > phases.indexOf("denoise"));
    const expected = await native.drawing(PACK, REQUEST, { seed: 1, steps });
    t.diagnostic(`greatest difference ${assertAlike(fromPage(value), expected, device === "cpu" ? 2 : 4)}/255`);
  });

  await t.test("nothing was downloaded twice for it", () => {
    const { log } = stage.store;
    const shards = log.filter(({ path }) => path.endsWith(".safetensors"));
    assert.equal(new Set(shards.map(({ path }) => path)).size, shards.length);
  });
});

across("a device that passed its self-test is tested again after a fault only", { devices: ["cpu", "webgpu"] }, async (stage, t) => {
  const { page, device } = stage;
  const [fault] = FAULTS[device];
  const compiled = (progress) => progress.filter(({ phase }) => phase === "compile").map(({ done, total }) => `${done} of ${total}`);
  const pipelines = () => page.evaluate(async () => (await lab.emu.costs()).pipelines);
  const first = await stage.load();
  const tests = compiled(first.progress);
  assert.ok(tests.length > 1);
  assert.equal(tests.at(-1), `${tests.length} of ${tests.length}`);
  const made = await pipelines();

  // The next visits.
  await stage.show();
  const second = await stage.load();
  assert.deepEqual(compiled(second.progress), []);
  if (device === "webgpu") assert.ok((await pipelines()) < made);
  await works(stage);
  t.diagnostic(`loaded in ${first.milliseconds.toFixed(0)} ms, then in ${second.milliseconds.toFixed(0)} ms`);
  await stage.show();
  assert.deepEqual(compiled((await stage.load({ cache: "none" })).progress), tests, "nothing is kept, so nothing is known");

  await stage.show();
  await stage.load();
  const { error, progress } = await page.evaluate(async (fault) => {
    const progress = [];
    const fox = await lab.bytes("/pictures/fox.png");
    lab.provoke(lab.emu, fault);
    const ended = await lab.outcome(lab.emu.caption(fox, { retry: true, onProgress: (event) => progress.push(event) }));
    return { ...ended, progress };
  }, fault);
  assert.equal(error, undefined);
  // On a GPU the pipelines of the caption are told of too, perhaps by both workers.
  const told = compiled(progress);
  assert.ok(tests.every((one) => told.includes(one)), JSON.stringify(told));
});

across("calls that wait when a worker dies go to the next one", {}, async (stage) => {
  await stage.load();
  const ended = await stage.page.evaluate(async (request) => {
    const fox = await lab.bytes("/pictures/fox.png");
    const calls = [lab.outcome(lab.draw(request, { steps: 30 })), lab.outcome(lab.emu.caption(fox)), lab.outcome(lab.emu.caption(fox))];
    lab.provoke(lab.emu, "panic");
    return Promise.all(calls);
  }, REQUEST);
  const [first, ...rest] = ended;
  // The fault may occur before the first call has started.
  assert.ok(first.value || first.error.code === "crashed", JSON.stringify(first.error));
  assert.deepEqual(rest, [{ value: FOX }, { value: FOX }]);
});

across("a worker that dies while nothing runs is replaced by the next call", {}, async (stage) => {
  await stage.load();
  await stage.page.evaluate(() => lab.provoke(lab.emu, "panic"));
  await works(stage);
});

across("what a pack asks for beyond this adapter is told before any download", { devices: ["webgpu"] }, async (stage, t) => {
  const demands = [
    ["a feature", { features: ["no-such-feature"] }, /lacks the feature no-such-feature/],
    ["a buffer", { largest_buffer: 2 ** 45 }, /needs buffers of/],
    ["a binding", { largest_binding: 2 ** 45 }, /needs buffers of/],
  ];
  for (const [what, requires, reason] of demands) {
    await t.test(what, async () => {
      await stage.close();
      // The pack has no shards.
      await stage.begin(await changedPack(PACK, (manifest) => Object.assign(manifest.requires, requires)));
      const support = await stage.page.evaluate((url) => lab.Emu.checkSupport(url, { device: "webgpu" }), stage.pack);
      assert.deepEqual([support.supported, support.device], [false, null]);
      assert.match(support.reasons.join(" "), reason);
      const { error } = await stage.tryLoad();
      assert.equal(error?.code, "unsupported");
      assert.match(error.message, reason);
      assert.deepEqual(stage.fetched, ["emu.json"]);
      assert.ok(!stage.site.log.some(({ path }) => path.endsWith(".wasm")));
    });
  }
});

across("with only a software adapter the CPU is chosen, and that is told", { devices: ["webgpu"] }, async (stage, t) => {
  const support = await stage.page.evaluate((url) => lab.Emu.checkSupport(url), stage.pack);
  if (!support.adapter?.software) return t.skip("the adapter here is hardware");
  assert.deepEqual([support.supported, support.device], [true, "cpu"]);
  assert.match(support.reasons.join(" "), /the CPU is used/);
  assert.deepEqual(stage.fetched, ["emu.json"]);
});

for (const name of BROWSERS) {
  test(`without WebGPU the CPU is used, and WebGPU by force is refused before any download (${name})`, { skip: absent(name) }, async (t) => {
    const browser = await launch(name, { webgpu: false, flags: ["--disable-features=WebGPU"] });
    t.after(() => browser.close());
    const stage = new Stage(name, browser, "webgpu");
    t.after(() => stage.close());
    await stage.begin(PACK);
    const { error } = await stage.tryLoad();
    assert.deepEqual([error?.name, error?.code], ["EmuError", "no-webgpu"]);
    assert.match(error.message, /no WebGPU/);
    assert.deepEqual(stage.fetched, ["emu.json"]);

    const { device, reasons } = await stage.load({ device: "auto" });
    assert.equal(device.kind, "cpu");
    assert.match(reasons.join(" "), /no WebGPU adapter.+the CPU is used/);
    await works(stage);
  });
}
