/** Pipelines are compiled before they are needed, many at a time, with progress; see `pipelines.ts` of the package. */

import assert from "node:assert/strict";

import * as native from "../lib/native.mjs";
import { across, PACK, picture } from "../lib/stage.mjs";

const REQUEST = "a fox on a blue background";
const [FOX] = await native.captions(PACK, [picture("fox.png")]);

/** Minimum pipelines of each kind of call. */
const MANY = 20;

/** Makes the page start workers that record how they create pipelines, and report it on request. */
const watchWorkers = (page) =>
  page.evaluate(() => {
    const inside = `(() => {
      const made = { atOnce: 0, behind: 0 };
      const { createComputePipeline, createComputePipelineAsync } = GPUDevice.prototype;
      GPUDevice.prototype.createComputePipeline = function (descriptor) {
        made.atOnce += 1;
        return createComputePipeline.call(this, descriptor);
      };
      GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
        made.behind += 1;
        return createComputePipelineAsync.call(this, descriptor);
      };
      const channel = new BroadcastChannel("pipelines");
      channel.onmessage = ({ data }) => data === "how many?" && channel.postMessage({ ...made });
    })();`;
    const Old = Worker;
    globalThis.Worker = class extends Old {
      constructor(url, options) {
        const script = `${inside} await import(${JSON.stringify(new URL(url, location.href).href)});`;
        // Messages that arrive before the package listens are kept for it.
        const early = "const early = []; const keep = (event) => early.push(event); addEventListener('message', keep);";
        const late = "removeEventListener('message', keep); for (const { data } of early) dispatchEvent(new MessageEvent('message', { data }));";
        super(URL.createObjectURL(new Blob([`${early} ${script} ${late}`], { type: "text/javascript" })), options);
      }
    };
    lab.pipelines = () =>
      new Promise((resolve) => {
        const channel = new BroadcastChannel("pipelines");
        channel.onmessage = ({ data }) => {
          if (data === "how many?") return;
          channel.close();
          resolve(data);
        };
        channel.postMessage("how many?");
      });
    /** Runs a call: its outcome, its compile progress, and how its pipelines were created. */
    lab.making = async (call, options = {}) => {
      const told = [];
      const before = await lab.pipelines();
      const onProgress = (event) => {
        if (event.phase === "compile") told.push(event);
        options.onProgress?.(event);
      };
      const ended = await lab.outcome(call({ ...options, onProgress }));
      const after = await lab.pipelines();
      return { ...ended, told, made: { atOnce: after.atOnce - before.atOnce, behind: after.behind - before.behind } };
    };
    lab.fox = lab.bytes("/pictures/fox.png");
    /** The fox, but for one pixel, by the least step. */
    lab.nearlyFox = async () => {
      const bitmap = await createImageBitmap(new Blob([await lab.fox]), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      const { width, height } = bitmap;
      const context = new OffscreenCanvas(width, height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const picture = context.getImageData(0, 0, width, height);
      picture.data[0] ^= 1;
      return picture;
    };
  });

function assertTold({ told, made }) {
  assert.ok(made.behind >= MANY, `${made.behind} pipelines in the background`);
  assert.ok(told.length >= 1 && told.every(({ total }) => total === made.behind), JSON.stringify(told));
  assert.equal(told.at(-1).done, made.behind);
  assert.ok(told.every(({ done }, at) => at === 0 || done >= told[at - 1].done), "it never goes back");
}

across("the first call of a kind makes its pipelines in the background, and tells of them", { devices: ["webgpu"] }, async (stage, t) => {
  const { page } = stage;
  await watchWorkers(page);
  await stage.load();
  const caption = (nearly) =>
    page.evaluate(async (nearly) => lab.making(async (hooks) => lab.emu.caption(await (nearly ? lab.nearlyFox() : lab.fox), hooks)), nearly);

  await t.test("a caption", async () => {
    const costs = await page.evaluate(() => lab.emu.costs());
    const first = await caption(false);
    assert.equal(first.value, FOX);
    assertTold(first);
    assert.equal(first.made.atOnce, 0);
    const between = await page.evaluate(() => lab.emu.costs());
    // The visual embeddings of the fox itself are kept: to read it again would cost less. The text is the same, and so is its length.
    const again = await caption(true);
    assert.deepEqual([again.value, again.told, again.made], [FOX, [], { atOnce: 0, behind: 0 }]);
    // Rehearsed dispatches were not executed.
    const after = await page.evaluate(() => lab.emu.costs());
    for (const what of ["launches", "readBacks", "readBackBytes", "weightBytes"]) {
      assert.equal(between[what] - costs[what], after[what] - between[what], what);
    }
    assert.equal(between.pipelines - costs.pipelines, first.made.behind);
  });

  await t.test("an answer that is drawn by lot", async (t) => {
    const { value, made, told } = await page.evaluate(async () =>
      lab.making(async (hooks) => lab.chat([await lab.fox, "what is this?"], { images: false, temperature: 1, topK: 5, seed: 7, maxNewTokens: 20, ...hooks })),
    );
    assert.ok(value.text.length > 0);
    t.diagnostic(JSON.stringify(made));
    assert.ok(made.behind > 0 && told.at(-1).done === told.at(-1).total);
    assert.equal(made.atOnce, 0);
  });

  await t.test("beams", async () => {
    const { value, made, told } = await page.evaluate(async () =>
      lab.making(async (hooks) => lab.chat([await lab.fox, "what is this?"], { images: false, beams: 3, maxNewTokens: 8, ...hooks })),
    );
    assert.ok(value.text.length > 0);
    assert.ok(told.length > 0);
    assert.equal(made.atOnce, 0, JSON.stringify(made));
  });

  await t.test("a drawing, stopped while its pipelines are made, and then another", async () => {
    const draw = (stop) =>
      page.evaluate(
        async (request, stop) => {
          const controller = new AbortController();
          const onProgress = ({ phase }) => stop && phase === "compile" && controller.abort();
          const call = (hooks) => lab.draw(request, { seed: 1, steps: 1, previewEvery: 1, ...hooks });
          return lab.making(call, { signal: controller.signal, onProgress });
        },
        REQUEST,
        stop,
      );
    const stopped = await draw(true);
    assert.equal(stopped.error?.name, "AbortError");
    const rest = await draw(false);
    assert.ok(rest.value.base64.length > 0);
    assert.ok(stopped.made.behind + rest.made.behind >= MANY);
    assert.equal(rest.made.atOnce, 0);
    const again = await draw(false);
    assert.deepEqual([again.made, again.told], [{ atOnce: 0, behind: 0 }, []]);
    assert.equal(again.value.base64, rest.value.base64);
  });
});

across("a device that is lost while pipelines are made is replaced", { devices: ["webgpu"] }, async (stage) => {
  const { page } = stage;
  await stage.load();
  const caption = (options) =>
    page.evaluate(async (options) => {
      const fox = await lab.bytes("/pictures/fox.png");
      return lab.during("compile", 1, () => lab.provoke(lab.emu, "device-lost"), (onProgress) => lab.emu.caption(fox, { ...options, onProgress }));
    }, options);
  assert.equal((await caption({ retry: true })).value, FOX);
  // The new worker has those pipelines; sampling uses another kernel.
  const { error } = await caption({ temperature: 1, topK: 5, seed: 1 });
  assert.deepEqual([error?.name, error?.code], ["EmuError", "device-lost"]);
  assert.equal(await page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png"))), FOX);
});
