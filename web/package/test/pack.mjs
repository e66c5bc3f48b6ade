/** A pack of random bytes with a valid manifest: it equals a real one except for the content of its shards. */

import { createHash, randomFillSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const MIB = 1 << 20;

/** Bytes of each component's shards. */
export const SHARDS = { vision: [9 * MIB + 123], lm: [5 * MIB, 300_000], decoder: [4 * MIB + 1] };

/** Writes a pack into a folder. Returns its manifest and the bytes of its shards. */
export async function writePack(folder, shards = SHARDS, name = "test") {
  const files = new Map();
  const entry = (file, bytes) => {
    files.set(file, bytes);
    return { file, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
  };
  const manifest = {
    format: 1,
    name,
    license: "MIT",
    attribution: "nobody",
    config: { emu: { vision: { image_size: 64 } }, ...(shards.decoder && { decoder: { image_size: 64 } }) },
    components: {},
    shards: [],
    files: [entry("tokenizer.json", Buffer.from("{}"))],
    tensors: [],
  };
  for (const [component, sizes] of Object.entries(shards)) {
    const names = sizes.map((size, i) => {
      const file = `${component}-0000${i + 1}-of-0000${sizes.length}.safetensors`;
      manifest.shards.push(entry(file, randomFillSync(Buffer.alloc(size))));
      manifest.tensors.push({
        name: `${component}.${i}`,
        dtype: "F16",
        shape: [1, size >> 1],
        component,
        parts: [{ file, key: `${component}.${i}`, rows: [0, 1] }],
      });
      return file;
    });
    manifest.components[component] = { shards: names, bytes: sizes.reduce((a, b) => a + b, 0) };
  }
  for (const [file, bytes] of files) await writeFile(join(folder, file), bytes);
  await writeFile(join(folder, "emu.json"), JSON.stringify(manifest));
  return { manifest, files };
}

/** A temporary folder, removed after the test. */
export async function temporaryFolder(test) {
  const folder = await mkdtemp(join(tmpdir(), "emu-"));
  test.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
