/** The entries beside the main one, on real packs: prefetching from a page and a service worker, private windows, OpenAI's shape. */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import * as native from "../lib/native.mjs";
import { launch } from "../lib/browsers.mjs";
import { across, PACK, picture, project } from "../lib/stage.mjs";

const isShard = (file) => file.endsWith(".safetensors");
/** Requests for shards of the pack. */
const shards = (stage) => stage.store.log.filter(({ path }) => isShard(path));

across("a pack is prefetched without a worker, resumed after an abort, and then loaded from the cache", {}, async (stage) => {
  const aborted = await stage.page.evaluate(async (pack) => {
    const { Emu } = await import("emu-webgpu");
    const stop = new AbortController();
    const onProgress = ({ loaded }) => loaded > 4 << 20 && stop.abort();
    return Emu.prefetch(pack, { components: ["decoder"], signal: stop.signal, onProgress }).catch(({ name }) => name);
  }, stage.pack);
  assert.equal(aborted, "AbortError");
  await stage.page.evaluate(async (pack) => {
    const { Emu } = await import("emu-webgpu");
    await Emu.prefetch(pack, { components: ["vision", "lm", "decoder"], persist: true });
  }, stage.pack);
  const listed = await stage.page.evaluate(async () => (await import("emu-webgpu")).Emu.cache.list());
  assert.deepEqual(listed.map(({ url, complete }) => [url, complete]), [[stage.pack, true]]);

  stage.store.log.length = 0;
  await stage.load();
  await stage.page.evaluate(async () => lab.emu.generateImage("a panda", { steps: 1 }));
  assert.deepEqual(shards(stage), []);
});

across("a service worker prefetches", {}, async (stage) => {
  const { folder } = await project();
  await writeFile(
    join(folder, "prefetching.js"),
    `import { prefetch } from "/node_modules/emu-webgpu/dist/prefetch.js";
addEventListener("message", ({ data, source }) => prefetch(data).then(() => source.postMessage("done"), (error) => source.postMessage(String(error))));\n`,
  );
  const said = await stage.page.evaluate(async (pack) => {
    await navigator.serviceWorker.register("/prefetching.js", { type: "module" });
    const { active } = await navigator.serviceWorker.ready;
    const said = new Promise((resolve) => (navigator.serviceWorker.onmessage = ({ data }) => resolve(data)));
    active.postMessage(pack);
    return said;
  }, stage.pack).catch(String);
  assert.equal(said, "done");
  stage.store.log.length = 0;
  await stage.load();
  assert.deepEqual(shards(stage), []);
});

across("in a private window a pack is kept for as long as the window is", { browsers: ["firefox"] }, async (stage, t) => {
  const browser = await launch("firefox", { webgpu: false, preferences: { "browser.privatebrowsing.autostart": true } });
  t.after(() => browser.close());
  const page = await stage.open(browser);
  t.diagnostic(`the file system: ${await page.evaluate(() => navigator.storage.getDirectory().then(() => "is there", ({ name }) => name))}`);
  await stage.load({}, page);
  await stage.show(page);
  stage.store.log.length = 0;
  await stage.load({}, page);
  assert.deepEqual(shards(stage), []);
});

across("the client in OpenAI's shape answers as the native program does", {}, async (stage) => {
  await stage.load();
  const { answer, streamed, drawn } = await stage.page.evaluate(async () => {
    const { EmuOpenAI } = await import("emu-webgpu/openai");
    const client = new EmuOpenAI(lab.emu);
    const url = new URL("/pictures/chick-telescope.png", location.href).href;
    const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: "what is on the left?" }] }];
    const answer = await client.chat.completions.create({ messages });
    let streamed = "";
    for await (const { choices } of await client.chat.completions.create({ messages, stream: true, stop: "ick" })) streamed += choices[0].delta.content ?? "";
    const { data } = await client.images.generate({ prompt: "a panda", seed: 7, steps: 1 });
    const image = new Image();
    image.src = `data:image/png;base64,${data[0].b64_json}`;
    await image.decode();
    return { answer: answer.choices[0].message.content, streamed, drawn: [image.width, image.height] };
  });
  const { text } = await native.answer(PACK, [picture("chick-telescope.png")], "what is on the left?");
  assert.equal(answer, text);
  assert.equal(streamed, text.replace(/ick[^]*/, ""));
  assert.ok(drawn[0] > 0 && drawn[0] === drawn[1]);
});
