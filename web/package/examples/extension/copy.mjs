/** Copies what esbuild leaves out beside the bundle: workers, WASM modules and the pack. */

import { cpSync } from "node:fs";

for (const part of ["dist", "wasm"]) cpSync(`node_modules/emu-webgpu/${part}`, `dist/emu-webgpu/${part}`, { recursive: true });
cpSync("node_modules/emu-webgpu-mini/pack", "dist/emu-mini", { recursive: true });
for (const file of ["index.html", "manifest.json"]) cpSync(file, `dist/${file}`);
