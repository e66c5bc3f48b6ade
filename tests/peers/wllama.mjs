/**
 * Tokens a second of a language model in Chromium, one thread each: wllama (llama.cpp in WebAssembly) and emu's module for the
 * CPU in turn, in one run.
 *
 * Usage: node wllama.mjs MODEL.gguf WLLAMA EMU [--rounds N] [--tokens N]
 *
 * WLLAMA is the folder of the npm package @wllama/wllama, EMU that of a module built with the feature `peers`; README.md has
 * the commands. Prefill is the time until the first token is known, over the tokens of the prompt; decoding what follows, over
 * the tokens after the first. Each figure is the median over the rounds. Prints a line of JSON for each.
 */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";

import { launch } from "../../web/e2e/lib/browsers.mjs";

const QUESTION =
  "Write a very long story. It begins so: " +
  Array.from(
    { length: 16 },
    (_, i) => `On day ${i + 1} the keeper climbed ${i + 41} steps to the lamp, looked over the grey sea and counted the ships.`,
  ).join(" ");
const SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "3" }, tokens: { type: "string", default: "65" } },
});
const [model, wllama, emu] = positionals;
if (!emu) throw new Error("Give MODEL.gguf, the folder of wllama, and that of emu's module.");
const [rounds, tokens] = [Number(values.rounds), Number(values.tokens)];

const KINDS = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

/** A worker with emu's module: loads, then answers each message with the times of its tokens. */
const WORKER = `
import init, { open, TextPeer } from "/emu/emu_web.js";
let peer;
onmessage = async ({ data }) => {
  try {
    if (data.model) {
      await init({ module_or_path: fetch("/emu/emu_web_bg.wasm") });
      await open();
      peer = new TextPeer(new Uint8Array(await (await fetch(data.model)).arrayBuffer()));
      return postMessage({ ready: true });
    }
    const times = [];
    const start = performance.now();
    const prompt = await peer.answer(data.question, data.tokens, () => times.push(performance.now() - start));
    postMessage({ prompt, tokens: times.length, first: times[0], last: times.at(-1) });
  } catch (error) {
    postMessage({ error: error.message ?? String(error) });
  }
};
`;
const PAGE = `<!doctype html><meta charset="utf-8"><title>Peers</title><link rel="icon" href="data:,">`;

/** Serves the page and what it loads. Without isolation of the origin there are no threads. */
async function serve() {
  const folders = { wllama: join(wllama, "esm"), emu };
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const send = (kind, text) => response.writeHead(200, { "content-type": kind }).end(text);
    if (pathname === "/") return send("text/html", PAGE);
    if (pathname === "/worker.js") return send("text/javascript", WORKER);
    const [, first, ...rest] = normalize(pathname).split("/");
    const file = pathname === "/model.gguf" ? model : folders[first] && join(folders[first], ...rest);
    const about = file && (await stat(file).catch(() => null));
    if (!about?.isFile()) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": KINDS[extname(file)] ?? "application/octet-stream", "content-length": about.size });
    createReadStream(file).pipe(response);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

const median = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

const site = await serve();
const browser = await launch("chromium", { webgpu: false });
try {
  const page = await browser.newPage();
  await page.goto(site.url);
  await page.evaluate(async () => {
    const { Wllama, LoggerWithoutDebug } = await import("/wllama/index.js");
    const wasm = new URL("/wllama/wasm/wllama.wasm", location.href).href;
    const llama = new Wllama({ default: wasm }, { suppressNativeLog: true, logger: LoggerWithoutDebug });
    const file = await (await fetch("/model.gguf")).blob();
    await llama.loadModel([file], { n_ctx: 2048, n_threads: 1, n_gpu_layers: 0 });
    const worker = new Worker("/worker.js", { type: "module" });
    const ask = (message) =>
      new Promise((done, failed) => {
        worker.onmessage = ({ data }) => (data.error ? failed(new Error(data.error)) : done(data));
        worker.onerror = ({ message }) => failed(new Error(message));
        worker.postMessage(message);
      });
    await ask({ model: "/model.gguf" });
    globalThis.peers = {
      async wllama({ system, question, tokens }) {
        const start = performance.now();
        const messages = [{ role: "system", content: system }, { role: "user", content: question }];
        const options = { messages, max_tokens: tokens, temperature: 0, stream: true, cache_prompt: false };
        let [first, last, timings] = [];
        for await (const chunk of await llama.createChatCompletion(options)) {
          if (chunk.choices?.[0]?.delta?.content) {
            last = performance.now() - start;
            first ??= last;
          }
          timings = chunk.timings ?? timings;
        }
        if (llama.isMultithread()) throw new Error("wllama has several threads");
        return { prompt: timings.prompt_n + timings.cache_n, tokens: timings.predicted_n, first, last };
      },
      emu: ({ question, tokens }) => ask({ question, tokens }),
    };
  });
  const found = { wllama: [], emu: [] };
  for (let round = 0; round < rounds; round++) {
    for (const name of Object.keys(found)) {
      const asked = { system: SYSTEM, question: QUESTION, tokens };
      found[name].push(await page.evaluate((name, asked) => globalThis.peers[name](asked), name, asked));
    }
  }
  for (const [peer, runs] of Object.entries(found)) {
    const line = {
      peer,
      prompt_tokens: runs[0].prompt,
      tokens: runs[0].tokens,
      prefill_tokens_per_s: median(runs.map(({ prompt, first }) => (prompt / first) * 1000)),
      decode_tokens_per_s: median(runs.map(({ tokens, first, last }) => ((tokens - 1) / (last - first)) * 1000)),
      rounds,
    };
    console.log(JSON.stringify(line));
  }
} finally {
  await browser.close();
  site.close();
}
