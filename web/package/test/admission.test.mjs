import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { describeAdapter, hasSimd } from "../build/adapter.js";
import { admit, formatBytes, refusal, requireSupport, residentBytes } from "../build/admission.js";
import { parseManifest } from "../build/manifest.js";
import { needsOf } from "../build/needs.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const mini = parseManifest(readFileSync(new URL("../../../models/emu-mini/emu.json", import.meta.url), "utf8"));
const none = new Map();

const GPU = adapter("nvidia ada");
const SWIFTSHADER = adapter("google swiftshader");
const machine = (changes = {}) => ({ adapter: GPU, simd: true, memory: null, storage: null, ...changes });

function adapter(name, limits = {}, features = ["shader-f16"]) {
  const all = {
    maxBufferSize: GIB,
    maxStorageBufferBindingSize: GIB,
    maxComputeInvocationsPerWorkgroup: 256,
    ...limits,
  };
  return describeAdapter({ info: { description: name }, features: new Set(features), limits: all });
}

/** A manifest with these tensors: `[name, dtype, shape, component]`. */
function manifestOf(tensors, changes = {}) {
  const manifest = { ...structuredClone(mini), tensors: [], quantization: {}, ...changes };
  for (const [name, dtype, shape, component = "lm"] of tensors)
    manifest.tensors.push({ name, dtype, shape, component, parts: [] });
  return manifest;
}

test("auto takes a hardware GPU, and the CPU where there is none or only a program", () => {
  assert.equal(admit(mini, machine(), "auto", none).device, "webgpu");
  assert.deepEqual(admit(mini, machine(), "auto", none).reasons, []);

  const without = admit(mini, machine({ adapter: null }), "auto", none);
  assert.equal(without.device, "cpu");
  assert.equal(without.supported, true);
  assert.match(without.reasons.join(" "), /no WebGPU adapter here\. So the CPU/);

  for (const name of ["google swiftshader", "llvmpipe (LLVM 15)", "Mesa lavapipe", "Microsoft Basic Render Driver"]) {
    const software = admit(mini, machine({ adapter: adapter(name) }), "auto", none);
    assert.equal(software.device, "cpu", name);
    assert.match(software.reasons.join(" "), /only GPU here is a program/);
  }
  const info = { vendor: "x", isFallbackAdapter: true };
  assert.equal(describeAdapter({ info, features: new Set(), limits: {} }).software, true);
  assert.equal(describeAdapter({ info: { vendor: "intel" }, features: new Set(), limits: {} }).software, false);
});

test("both devices can be forced", () => {
  assert.equal(admit(mini, machine({ adapter: SWIFTSHADER }), "webgpu", none).device, "webgpu");
  assert.equal(admit(mini, machine(), "cpu", none).device, "cpu");
  const nothing = admit(mini, machine({ adapter: null }), "webgpu", none);
  assert.deepEqual([nothing.device, nothing.supported], [null, false]);
  assert.throws(() => requireSupport(nothing, "webgpu"), { code: "no-webgpu", message: /no WebGPU adapter/ });
  assert.throws(() => requireSupport(admit(mini, machine({ simd: false }), "cpu", none), "cpu"), {
    code: "unsupported",
    message: /vector instructions/,
  });
});

test("an adapter below the requirements is told, and auto goes to the CPU", () => {
  const demanding = { ...mini, requires: { ...mini.requires, features: ["shader-f16", "subgroups"] } };
  const forced = admit(demanding, machine(), "webgpu", none);
  assert.equal(forced.supported, false);
  assert.deepEqual(forced.reasons, ["The GPU lacks the feature subgroups, which this pack needs."]);
  assert.throws(() => requireSupport(forced, "webgpu"), { code: "unsupported" });
  assert.equal(admit(demanding, machine(), "auto", none).device, "cpu");

  const small = adapter("x", { maxComputeInvocationsPerWorkgroup: 128 });
  assert.match(
    admit(mini, machine({ adapter: small }), "webgpu", none).reasons.join(),
    /128 invocations, and the kernels need 256/,
  );

  const asking = { ...mini, requires: { features: [], largest_buffer: 2 * GIB, largest_binding: 0 } };
  assert.match(admit(asking, machine(), "webgpu", none).reasons.join(), /needs buffers of 2 GiB/);
});

test("bytes on the device: matrices stay packed, those of f16 on a GPU, the rest is f32", () => {
  const manifest = manifestOf(
    [
      ["a", "F16", [10, 32]],
      ["a.narrow", "F16", [10, 33]],
      ["a.conv", "F16", [10, 32, 1, 1]],
      ["b", "U32", [10, 8]],
      ["b.scales", "F16", [10, 1]],
      ["c", "U32", [10, 4]],
      ["c.scales", "F16", [10, 1]],
      ["c.mins", "F16", [10, 1]],
      ["d", "I32", [7]],
      ["e.scales", "F32", [3]],
      ["f", "U8", [5]],
      ["g", "F32", []],
      ["h", "U32", [4, 9]],
      ["h.scales", "F16", [4, 1]],
    ],
    { quantization: { b: "q8", c: "q4_1", h: "q8" } },
  );
  manifest.tensors.find(({ name }) => name === "h").logical = [4, 4, 3, 3];
  const bytes = (onGpu) =>
    Object.fromEntries(manifest.tensors.map((tensor) => [tensor.name, residentBytes(manifest, tensor, onGpu)]));
  assert.deepEqual(bytes(true), { ...bytes(false), a: 640 });
  assert.deepEqual(bytes(false), {
    a: 1280,
    "a.narrow": 1320,
    "a.conv": 1280,
    b: 320,
    "b.scales": 20,
    c: 160,
    "c.scales": 20,
    "c.mins": 20,
    d: 28,
    "e.scales": 12,
    f: 5,
    g: 4,
    h: 576,
    "h.scales": 0,
  });
});

test("the plan has every component and task", () => {
  const cached = new Map([[mini.components.lm.shards[0], 1234]]);
  const { plan, tasks, model } = admit(mini, machine(), "auto", cached);
  assert.deepEqual(
    plan.map(({ component, cached }) => [component, cached]),
    [
      ["vision", 0],
      ["lm", 1234],
      ["decoder", 0],
    ],
  );
  for (const part of plan) assert.equal(part.download, mini.components[part.component].bytes);
  // As in `emu inspect`: half-precision weights take twice their bytes on the CPU, and on a GPU those of convolutions do.
  const resident = ({ plan }) => plan.reduce((sum, part) => sum + part.resident, 0);
  assert.equal(resident({ plan }), 36_461_776);
  assert.equal(resident(admit(mini, machine(), "cpu", none)), 49_991_248);
  assert.deepEqual(
    tasks.map(({ task, fits }) => [task, fits]),
    [
      ["caption", true],
      ["chat", true],
      ["draw", true],
    ],
  );
  assert.deepEqual(tasks[0].components, ["vision", "lm"]);
  assert.ok(tasks[0].download < tasks[2].download);
  assert.deepEqual([model.draws, model.checks, model.imageSize], [64, false, 64]);

  // emu-mini was trained on single questions; its template does not define the end of an answer.
  assert.equal(model.converses, false);
  const conversing = structuredClone(mini);
  const converses = (prompts) => {
    conversing.config.emu.prompts = prompts;
    return admit(conversing, machine(), "auto", none).model.converses;
  };
  assert.deepEqual([{ answered: "<|im_end|>\n" }, { answered: "" }, {}, undefined].map(converses), [true, false, false, false]);

  const { decoder: _, ...components } = mini.components;
  const mute = admit({ ...mini, components }, machine(), "auto", none);
  assert.equal(mute.model.draws, null);
  assert.deepEqual([mute.supported, mute.tasks[2].fits], [true, false]);
});

test("a tensor beyond the binding limit cannot be loaded", () => {
  const firefox = adapter("x", { maxStorageBufferBindingSize: 128 * MIB });
  const table = manifestOf([["lm.embed", "F32", [32_007, 5120]]]);
  const stuck = admit(table, machine({ adapter: firefox }), "webgpu", none);
  assert.equal(stuck.supported, false);
  assert.match(stuck.reasons.join(), /Tensor lm\.embed takes a buffer of 625 MiB, and one has at most 128 MiB here/);

  // f16 matrices are split by rows if their rows are whole blocks.
  const halves = (width) => manifestOf([["lm.embed", "F16", [32_007, width]]]);
  const supported = (width) => admit(halves(width), machine({ adapter: firefox }), "webgpu", none).supported;
  assert.deepEqual([supported(5120), supported(5121)], [true, false]);

  // A component that only drawing needs does not block the rest.
  const convolution = manifestOf([["unet.conv", "F16", [8192, 8192, 3, 3], "decoder"]]);
  const partly = admit(convolution, machine({ adapter: firefox }), "webgpu", none);
  assert.equal(partly.supported, true);
  assert.deepEqual(partly.tasks[1].components, ["vision", "lm"], "a conversation does without pictures");
  assert.deepEqual(
    partly.tasks.map(({ fits }) => fits),
    [true, true, false],
  );
  assert.match(partly.reasons.join(), /unet\.conv/);
});

test("memory: what the CPU path cannot hold, and what the machine has not", () => {
  const large = manifestOf([..."abcdefgh"].map((name) => [`lm.${name}`, "F32", [1 << 14, 1 << 13]]));
  const cpu = admit(large, machine({ adapter: null }), "auto", none);
  assert.equal(cpu.supported, false);
  assert.match(cpu.reasons.join(), /at most 3\.5 GiB for weights, and this pack takes 4 GiB/);
  assert.equal(admit(large, machine(), "auto", none).supported, true);

  const poor = admit(large, machine({ memory: 2 * GIB }), "auto", none);
  assert.deepEqual([poor.supported, poor.tasks[0].fits], [true, true], "what browsers tell is too rough to refuse by");
  assert.match(poor.reasons.join(), /To caption takes 4\.0 GiB, and this machine has about 2 GiB: it may run out/);

  const drawing = manifestOf([["unet.a", "F32", [1 << 15, 1 << 15], "decoder"]]);
  const partly = admit(drawing, machine({ adapter: null }), "auto", none);
  assert.deepEqual(
    partly.tasks.map(({ fits }) => fits),
    [true, true, false],
  );
  assert.match(partly.reasons.join(), /To draw takes 4\.0 GiB, and the CPU path has at most 3\.5 GiB/);

  const shard = { ...mini, shards: [{ ...mini.shards[0], bytes: 2 * GIB }] };
  assert.match(admit(shard, machine(), "auto", none).reasons.join(), /smaller shards/);
});

test("storage that is too small is told and no obstacle", () => {
  const { supported, reasons } = admit(mini, machine({ storage: 1 * MIB }), "auto", none);
  assert.equal(supported, true);
  assert.match(reasons.join(), /grants this page 1 MiB of storage/);
  const all = new Map(mini.shards.map(({ file, bytes }) => [file, bytes]));
  assert.deepEqual(admit(mini, machine({ storage: 1 * MIB }), "auto", all).reasons, []);
});

test("bytes for people", () => {
  assert.deepEqual([1, 1024, 1.5 * MIB, 128 * MIB, 2.25 * GIB].map(formatBytes), [
    "1 KiB",
    "1 KiB",
    "1.5 MiB",
    "128 MiB",
    "2.3 GiB",
  ]);
});

test("vector instructions are found where they are", () => assert.equal(hasSimd(), true));

/** A small language model that reads the names found by EfficientNet-Lite2. */
const NAMING = {
  emu: {
    vision: {
      image_size: 260,
      patch_size: 32,
      width: 1280,
      mlp_ratio: 1,
      efficientnet: {
        stem: 32,
        stages: [
          [1, 1, 1, 16],
          [3, 2, 6, 24],
          [3, 2, 6, 48],
          [4, 2, 6, 88],
          [4, 1, 6, 120],
          [5, 2, 6, 208],
          [1, 1, 6, 352],
        ].map(([repeats, stride, expand, outputs]) => ({ repeats, stride, expand, outputs })),
        features: 1280,
      },
    },
    namer: { spelling: { objects: 2, tokens: 3 } },
    lm: { heads: 4, kv_heads: 4, head_size: 16, ffn: 172, layers: 2, context: 2048 },
  },
};

/** Sizes of the released models: LLaMA 13B, EVA, Stable Diffusion 1.5. */
const LARGE = {
  emu: {
    vision: { image_size: 224, patch_size: 14, width: 1408, mlp_ratio: 4.3637 },
    causal: { queries: 32 },
    lm: { heads: 40, kv_heads: 40, head_size: 128, ffn: 13_824, layers: 40, context: 2048 },
  },
  decoder: {
    image_size: 512,
    unet: { channels: [320, 640, 1280, 1280], down: ["cross_attention", "cross_attention", "cross_attention", "plain"] },
    vae: { channels: [128, 256, 512, 512] },
  },
};

test("keys, values and activations are counted from the configuration, as `emu inspect` counts them", () => {
  // The same numbers are in needs.rs.
  const found = (config, task, expected) => Object.values(needsOf(config, task, expected));
  assert.deepEqual(found(LARGE, "caption"), [286_007_296, 6_316_032]);
  assert.deepEqual(found(LARGE, "chat"), [4_160_749_568, 268_435_456]);
  assert.deepEqual(found(LARGE, "draw"), [915_079_168, 268_435_456]);
  assert.deepEqual(found(LARGE, "draw", { beams: 5 }), found(LARGE, "draw"));
  assert.equal(needsOf(LARGE, "caption", { beams: 5 }).binding, 5 * 163 * 40 * 128 * 4);
  // Five beams over the whole context: 200 MiB of keys per layer.
  assert.equal(needsOf(LARGE, "caption", { beams: 5, maxNewTokens: 2048 }).binding, 200 * MIB);
  assert.deepEqual(found({ ...LARGE, decoder: undefined }, "chat"), found(LARGE, "caption"));
  assert.deepEqual(found(mini.config, "caption"), [1_296_384, 131_072]);
  assert.deepEqual(found(NAMING, "caption"), [19_607_040, 6_489_600]);
  // With `requests`, a picture is a whole answer: the KV cache is that of text.
  const small = { unet: { channels: [48], down: ["plain"] }, vae: { channels: [32] }, image_size: 64 };
  const drawing = { ...NAMING, decoder: small };
  const reading = { ...drawing, emu: { ...NAMING.emu, requests: {} } };
  assert.deepEqual(found(reading, "chat"), found(NAMING, "caption"));
  assert.ok(needsOf(drawing, "chat").working > needsOf(reading, "chat").working);
  const broken = structuredClone(LARGE);
  delete broken.emu.lm.heads;
  delete broken.emu.causal;
  assert.deepEqual(needsOf(broken, "draw"), { working: 0, binding: 0 });
});

test("what a request takes beside the weights is looked at before anything is downloaded", () => {
  const manifest = manifestOf([["lm.a", "F16", [1024, 1024]]], { config: LARGE });
  const least = adapter("x", { maxStorageBufferBindingSize: 128 * MIB });
  const at = (expected, changes = { adapter: least }, choice = "webgpu") =>
    admit(manifest, machine(changes), choice, none, expected);
  const fits = ({ tasks }) => tasks.map(({ fits }) => fits);

  const usual = at({});
  assert.deepEqual([usual.supported, ...fits(usual)], [true, true, true, false]);
  assert.match(usual.reasons.join(" "), /To draw takes a buffer of 256 MiB, and one has at most 128 MiB here\. Ask for/);
  assert.deepEqual(usual.tasks[1].components, ["vision", "lm"], "a conversation does without pictures");
  assert.deepEqual(fits(at({ width: 256, height: 256 })), [true, true, true]);
  assert.deepEqual(fits(at({}, {})), [true, true, true]);

  const search = { beams: 5, maxNewTokens: 2048 };
  const beams = at(search);
  assert.equal(beams.supported, false);
  assert.match(beams.reasons.join(" "), /To caption takes a buffer of 200 MiB/);
  assert.throws(() => requireSupport(beams, "webgpu"), { code: "unsupported", message: /200 MiB/ });
  // The CPU has no buffer limit, but a memory limit.
  const cpu = at(search, { adapter: least }, "auto");
  assert.equal(cpu.supported, false);
  assert.match(cpu.reasons.join(" "), /To caption takes 19 GiB, and the CPU path has at most 3\.5 GiB/);
  assert.equal(at({ beams: 5 }, { adapter: null }, "auto").device, "cpu");

  const { resident, working } = usual.tasks[0];
  assert.equal(working, 286_007_296);
  assert.equal(resident, usual.plan.reduce((sum, part) => sum + (part.component === "decoder" ? 0 : part.resident), working));

  assert.match(refusal(manifest, usual, "caption", search), /200 MiB/);
  assert.equal(refusal(manifest, usual, "caption", { beams: 3, maxNewTokens: 2048 }), null);
  assert.match(refusal(manifest, usual, "draw", {}), /256 MiB/);
  for (const strange of [{ beams: 33 }, { beams: NaN }, { width: 5000 }, { height: NaN }])
    assert.equal(refusal(manifest, usual, "draw", strange), null, "the engine names what is out of its range");
  assert.equal(refusal(manifest, usual, "draw", { width: 256, height: 256 }), null);
  const onCpu = at({}, { adapter: null }, "auto");
  assert.match(refusal(manifest, onCpu, "caption", search), /at most 3\.5 GiB/);
  assert.equal(refusal(manifest, onCpu, "caption", { beams: 5 }), null);
});
