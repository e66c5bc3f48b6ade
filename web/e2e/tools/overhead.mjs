/**
 * Measures the cost of a token of the packaged model besides the GPU's work, in each browser: `node tools/overhead.mjs`.
 *
 * The module runs in a page as it does in the package's worker, with nudging in Firefox. The submissions of one token are
 * recorded and submitted again, many times, without read-backs: the time of one replay is the GPU's work (and the commands' cost,
 * which it hides). The overhead is the rest of the time of a token. Prints a line of JSON per browser: medians of several rounds.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { serve } from "../../server/serve.mjs";
import { absent, BROWSERS, launch } from "../lib/browsers.mjs";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const pack = [join(root, "web/mini/pack"), join(root, "models/emu-mini")].find((folder) => existsSync(join(folder, "emu.json")));
const TOKENS = 120;
const ROUNDS = 5;

/** Runs in the page. */
async function measure(tokens, rounds) {
  const [module, { watchGpu }, { turn }] = await Promise.all(["/wasm/webgpu/emu_web.js", "/build/gpu.js", "/build/turn.js"].map((path) => import(path)));
  let queue;
  let log = null;
  let nested = false;
  const around = (type, name, note) => {
    const old = type.prototype[name];
    type.prototype[name] = function (...args) {
      const made = old.apply(this, args);
      if (!nested) note(this, args, made);
      return made;
    };
  };
  // Commands of each encoder, and of its passes.
  const commands = new WeakMap();
  const add = (target, command) => commands.get(target)?.push(command);
  around(GPUDevice, "createCommandEncoder", (_, __, encoder) => commands.set(encoder, []));
  around(GPUCommandEncoder, "beginComputePass", (encoder, [about], pass) => {
    const inside = [];
    commands.set(pass, inside);
    // Without timestamp queries.
    add(encoder, (to) => {
      const again = to.beginComputePass(about?.label ? { label: about.label } : {});
      for (const command of inside) command(again);
      again.end();
    });
  });
  for (const name of ["setPipeline", "setBindGroup", "dispatchWorkgroups"]) {
    around(GPUComputePassEncoder, name, (pass, args) => add(pass, (to) => to[name](...args)));
  }
  around(GPUCommandEncoder, "finish", (encoder, _, buffer) => commands.set(buffer, commands.get(encoder)));
  let device;
  around(GPUQueue, "submit", (to, [buffers]) => {
    queue = to;
    const held = [...buffers].map((buffer) => commands.get(buffer)).filter((list) => list?.length);
    if (log && held.length) log.push(held);
  });
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    return (device = await request.apply(this, args));
  };

  watchGpu((error) => console.error(error.message));
  await module.default({ module_or_path: "/wasm/webgpu/emu_web_bg.wasm" });
  await module.open();
  const get = async (file) => new Uint8Array(await (await fetch(`/pack/${file}`)).arrayBuffer());
  const manifest = await get("emu.json");
  const engine = new module.Engine(manifest, await get("tokenizer.json"));
  const { components } = JSON.parse(new TextDecoder().decode(manifest));
  for (const component of ["vision", "lm"]) {
    for (const file of components[component].shards) engine.shard(file, await get(file));
    await engine.finish(component);
  }
  const picture = await get("../picture/fox.png");
  /** Milliseconds between tokens, and the submissions between two of them. */
  const answer = async () => {
    const times = [];
    let submitted = [];
    const text = { maxNewTokens: tokens, temperature: 20 };
    const request = { task: "chat", messages: [{ role: "user", parts: [{ image: 0 }, { text: "what is this?" }] }], text, seed: 7 };
    await engine.run(request, [picture], async (event) => {
      if (event.type === "decode") {
        times.push(performance.now());
        if (times.length === 60) log = [];
        if (times.length === 64) [submitted, log] = [log, null];
      }
      await turn();
      return true;
    });
    return { gaps: times.slice(1).map((time, index) => time - times[index]), submitted };
  };
  const again = async (submitted, times) => {
    nested = true;
    const start = performance.now();
    for (let i = 0; i < times; i++) {
      for (const buffers of submitted) {
        const encoder = device.createCommandEncoder();
        for (const list of buffers) for (const command of list) command(encoder);
        queue.submit([encoder.finish()]);
      }
    }
    await queue.onSubmittedWorkDone();
    nested = false;
    return performance.now() - start;
  };
  const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
  await answer();
  const found = [];
  for (let round = 0; round < rounds; round++) {
    const { gaps, submitted } = await answer();
    await again(submitted, 2);
    // Each replay has four tokens' submissions. The first few gaps are from dispatches before the recording is replayed.
    const gpu = (await again(submitted, 20)) / 80;
    const steady = gaps.slice(10);
    const mean = steady.reduce((a, b) => a + b, 0) / steady.length;
    found.push({ token: mean, gpu, tokens: gaps.length + 1, submits: submitted.length / 4 });
  }
  const of = (key) => median(found.map((round) => round[key]));
  return { tokens: of("tokens"), ms_per_token: of("token"), ms_of_gpu: of("gpu"), ms_of_overhead: median(found.map(({ token, gpu }) => token - gpu)), submits_per_token: of("submits") };
}

for (const name of BROWSERS) {
  const why = absent(name);
  if (why) {
    console.log(JSON.stringify({ browser: name, skipped: why }));
    continue;
  }
  const browser = await launch(name);
  const site = await serve([
    { prefix: "/pack/", folder: pack },
    { prefix: "/picture/", folder: join(root, "models/emu-mini/demo") },
    { prefix: "/", folder: join(root, "web/package") },
  ]);
  try {
    const page = await browser.newPage();
    page.on("console", (message) => console.error(message.text()));
    await page.goto(`${site.url}package.json`);
    console.log(JSON.stringify({ browser: name, ...(await page.evaluate(measure, TOKENS, ROUNDS)) }));
  } finally {
    await browser.close();
    await site.close();
  }
}
