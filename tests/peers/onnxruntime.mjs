/**
 * Milliseconds of a four-bit product and of an attention layer on the same WebGPU adapter in Chromium: ONNX Runtime Web and emu's
 * module for WebGPU in turn, in one run.
 *
 * Usage: node onnxruntime.mjs ORT EMU [--rounds N] [--milliseconds N]
 *
 * ORT is the folder of the npm package onnxruntime-web, EMU that of a module built with the features `webgpu` and `peers`;
 * README.md has the commands. Inputs and outputs stay on the GPU. Each work runs as often as fills the time, and the end of
 * the last run is waited for; figures are medians over the rounds. Prints a line of JSON for each work, with the ratio.
 */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";

import { launch } from "../../web/e2e/lib/browsers.mjs";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "5" }, milliseconds: { type: "string", default: "1500" } },
});
const [ort, emu] = positionals;
if (!emu) throw new Error("Give the folder of onnxruntime-web and that of emu's module.");
const [rounds, milliseconds] = [Number(values.rounds), Number(values.milliseconds)];

const SIZE = 2048;
const BLOCK = 32;
const WORKS = [
  { kind: "product", size: SIZE, rows: 1 },
  { kind: "product", size: SIZE, rows: 32 },
  { kind: "product", size: SIZE, rows: 256 },
  { kind: "attention", heads: 16, positions: 256, head: 64 },
  { kind: "attention", heads: 8, positions: 1024, head: 64 },
];

/** A field of a protocol buffer: a number, or what has a length. */
function field(number, value) {
  if (typeof value === "number") return [...varint(number << 3), ...varint(value)];
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : Uint8Array.from(value);
  return [...varint((number << 3) | 2), ...varint(bytes.length), ...bytes];
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

const FLOAT = 1;
const BYTE = 2;
const DOMAIN = "com.microsoft";

/** `ValueInfoProto`. */
const value = (name, type, dims) => {
  const shape = dims.flatMap((dim) => field(1, field(1, dim)));
  return [...field(1, name), ...field(2, field(1, [...field(1, type), ...field(2, shape)]))];
};

/** `ModelProto` of one node; attributes are whole numbers. All inputs are given when it runs. */
function onnx(operation, attributes, inputs, output) {
  const attribute = ([name, number]) => field(5, [...field(1, name), ...field(3, number), ...field(20, 2)]);
  const node = [
    ...inputs.flatMap(([name]) => field(1, name)),
    ...field(2, output[0]),
    ...field(4, operation),
    ...Object.entries(attributes).flatMap(attribute),
    ...field(7, DOMAIN),
  ];
  const graph = [
    ...field(1, node),
    ...field(2, "work"),
    ...inputs.flatMap((input) => field(11, value(...input))),
    ...field(12, value(...output)),
  ];
  const opset = (domain, version) => field(8, [...field(1, domain), ...field(2, version)]);
  return Buffer.from([...field(1, 9), ...opset("", 19), ...opset(DOMAIN, 1), ...field(7, graph)]);
}

/** The model of a work, with its inputs and its output. */
function modelOf(work) {
  const { kind, size, rows, heads, positions, head } = work;
  if (kind === "product") {
    const inputs = [
      ["x", FLOAT, [rows, size]],
      ["weight", BYTE, [size, size / BLOCK, BLOCK / 2]],
      ["scales", FLOAT, [(size * size) / BLOCK]],
    ];
    const output = ["y", FLOAT, [rows, size]];
    return { inputs, output, model: onnx("MatMulNBits", { K: size, N: size, bits: 4, block_size: BLOCK }, inputs, output) };
  }
  const dims = [1, positions, heads * head];
  const inputs = ["q", "k", "v"].map((name) => [name, FLOAT, dims]);
  const output = ["y", FLOAT, dims];
  return { inputs, output, model: onnx("MultiHeadAttention", { num_heads: heads }, inputs, output) };
}

const KINDS = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const PAGE = `<!doctype html><meta charset="utf-8"><title>Peers</title><link rel="icon" href="data:,">`;

async function serve() {
  const folders = { ort: join(ort, "dist"), emu };
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/") return response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    const [, first, ...rest] = normalize(pathname).split("/");
    const file = folders[first] && join(folders[first], ...rest);
    const about = file && (await stat(file).catch(() => null));
    if (!about?.isFile()) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": KINDS[extname(file)] ?? "application/octet-stream", "content-length": about.size });
    createReadStream(file).pipe(response);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

const site = await serve();
const browser = await launch("chromium");
try {
  const page = await browser.newPage();
  await page.goto(site.url);
  await page.evaluate(async () => {
    const [ort, emu] = await Promise.all([import("/ort/ort.webgpu.min.mjs"), import("/emu/emu_web.js")]);
    ort.env.wasm.wasmPaths = "/ort/";
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    await emu.default({ module_or_path: "/emu/emu_web_bg.wasm" });
    // As the package's worker does it; ONNX Runtime Web asks for them itself.
    const { requestDevice } = GPUAdapter.prototype;
    let invocations = 0;
    GPUAdapter.prototype.requestDevice = function (how) {
      if (!this.features.has("subgroups")) return requestDevice.call(this, how);
      invocations = this.info.subgroupMinSize || 4;
      return requestDevice.call(this, { ...how, requiredFeatures: [...(how?.requiredFeatures ?? []), "subgroups"] });
    };
    await emu.open();
    GPUAdapter.prototype.requestDevice = requestDevice;
    if (invocations > 0) emu.subgroups(invocations);
    /** Runs often enough to fill the time; milliseconds of one. */
    const timed = async (run, milliseconds) => {
      await run(2);
      const start = performance.now();
      await run(2);
      const times = Math.max(3, Math.round((milliseconds * 2) / (performance.now() - start)));
      const begin = performance.now();
      await run(times);
      return (performance.now() - begin) / times;
    };
    const peers = {
      async onnxruntime({ model, inputs, output }) {
        const options = { executionProviders: ["webgpu"], preferredOutputLocation: "gpu-buffer" };
        const session = await ort.InferenceSession.create(Uint8Array.from(model), options);
        const device = await ort.env.webgpu.device;
        const size = (dims, type) => dims.reduce((a, b) => a * b, type === 1 ? 4 : 1);
        const buffer = (dims, type) => {
          const bytes = size(dims, type);
          const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
          const made = device.createBuffer({ size: bytes, usage });
          const data = type === 1 ? new Float32Array(bytes / 4) : new Uint8Array(bytes);
          for (let i = 0; i < data.length; i++) data[i] = type === 1 ? ((i * 37) % 101) / 101 : (i * 31) & 255;
          device.queue.writeBuffer(made, 0, data);
          return ort.Tensor.fromGpuBuffer(made, { dataType: type === 1 ? "float32" : "uint8", dims });
        };
        const feeds = Object.fromEntries(inputs.map(([name, type, dims]) => [name, buffer(dims, type)]));
        const fetches = { [output[0]]: buffer(output[2], output[1]) };
        return async (times) => {
          for (let i = 0; i < times; i++) await session.run(feeds, fetches);
          await device.queue.onSubmittedWorkDone();
        };
      },
      async emu({ work: { kind, size, rows, heads, positions, head } }) {
        const peer = kind === "product" ? emu.KernelPeer.product(size, rows) : emu.KernelPeer.attention(heads, positions, head);
        return (times) => peer.run(times);
      },
    };
    const made = new Map();
    globalThis.measure = async (peer, key, work, milliseconds) => {
      if (!made.has(key + peer)) made.set(key + peer, await peers[peer](work));
      return timed(made.get(key + peer), milliseconds);
    };
  });
  for (const work of WORKS) {
    const { inputs, output, model } = modelOf(work);
    const found = { onnxruntime: [], emu: [] };
    for (let round = 0; round < rounds; round++) {
      for (const peer of Object.keys(found)) {
        const about = { work, inputs, output, model: [...model] };
        found[peer].push(await page.evaluate((...all) => globalThis.measure(...all), peer, JSON.stringify(work), about, milliseconds));
      }
    }
    const [theirs, ours] = [median(found.onnxruntime), median(found.emu)];
    console.log(JSON.stringify({ ...work, onnxruntime_ms: theirs, emu_ms: ours, ratio: theirs / ours, rounds }));
  }
} finally {
  await browser.close();
  site.close();
}
