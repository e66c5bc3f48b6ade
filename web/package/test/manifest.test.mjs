import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { parseManifest } from "../build/manifest.js";
import { temporaryFolder, writePack } from "./pack.mjs";

const MINI = readFileSync(new URL("../../../models/emu-mini/emu.json", import.meta.url), "utf8");

test("the shipped pack's manifest is read", () => {
  const manifest = parseManifest(MINI);
  assert.equal(manifest.name, "emu-mini");
  assert.deepEqual(Object.keys(manifest.components).sort(), ["decoder", "lm", "vision"]);
  assert.ok(manifest.tensors.length > 100);
  assert.ok(manifest.files.some(({ file }) => file === "tokenizer.json"));
});

test("each kind of wrong manifest has its error", async (t) => {
  const { manifest } = await writePack(await temporaryFolder(t));
  const shard = manifest.shards[0].file;
  const cases = [
    ["unknown-format", /format 2/, (m) => (m.format = 2)],
    ["unknown-format", /format "1"/, (m) => (m.format = "1")],
    ["bad-manifest", /no format/, (m) => delete m.format],
    ["bad-name", /"\.\.\/x"/, (m) => (m.shards[0].file = "../x")],
    ["bad-name", /"a\/b"/, (m) => (m.files[0].file = "a/b")],
    ["bad-name", /"\.hidden"/, (m) => (m.shards[0].file = ".hidden")],
    ["bad-name", /plain file name/, (m) => (m.components.vision.shards = ["https://elsewhere/x"])],
    [
      "bad-manifest",
      /64 lower-case/,
      (m) => (m.shards[0].sha256 = m.shards[0].sha256.toUpperCase().replace(/\d/g, "A")),
    ],
    ["bad-manifest", /twice/, (m) => m.shards.push(m.shards[0])],
    ["bad-manifest", /twice/, (m) => m.files.push({ ...m.files[0], file: "emu.json" })],
    ["bad-manifest", /is not a count/, (m) => (m.shards[0].bytes = -1)],
    ["bad-manifest", /is not a count/, (m) => (m.shards[0].bytes = 1.5)],
    ["bad-manifest", /not listed/, (m) => m.components.lm.shards.push("gone.safetensors")],
    ["bad-manifest", /two components/, (m) => m.components.lm.shards.push(shard)],
    ["bad-manifest", /bytes of its shards/, (m) => (m.components.lm.bytes += 1)],
    ["bad-manifest", /no component `lm`/, (m) => delete m.components.lm],
    ["bad-manifest", /no tokenizer\.json/, (m) => (m.files = [])],
    ["bad-manifest", /no known type/, (m) => (m.tensors[0].dtype = "Q9")],
    ["bad-manifest", /shape/, (m) => (m.tensors[0].shape = [1, "2"])],
    ["bad-manifest", /unknown scheme "q3"/, (m) => (m.quantization = { "vision.0": "q3" })],
    ["bad-manifest", /features is not a list/, (m) => (m.requires = { features: "shader-f16" })],
    ["bad-manifest", /config\.emu/, (m) => (m.config = {})],
    ["bad-manifest", /config\.decoder\.image_size/, (m) => (m.config.decoder = {})],
    ["bad-manifest", /tensors is not a list/, (m) => (m.tensors = {})],
  ];
  assert.equal(parseManifest(JSON.stringify(manifest)).name, "test");
  for (const [code, message, spoil] of cases) {
    const wrong = structuredClone(manifest);
    spoil(wrong);
    assert.throws(() => parseManifest(JSON.stringify(wrong)), { name: "EmuError", code, message }, String(spoil));
  }
  for (const text of ["", "[]", "<!doctype html>", "null", '"x"']) {
    assert.throws(() => parseManifest(text), { name: "EmuError", code: "bad-manifest" }, text);
  }
});

test("components of a later version are left alone", async (t) => {
  const { manifest } = await writePack(await temporaryFolder(t), { vision: [100], lm: [100], audio: [100] });
  assert.deepEqual(Object.keys(parseManifest(JSON.stringify(manifest)).components), ["vision", "lm"]);
});
