/** Copies what esbuild leaves out beside the bundle: workers, WASM modules and the pack. */

import { cpSync } from "node:fs";

for (const part of ["dist", "wasm"]) cpSync(`node_modules/emu-webgpu/${part}`, `public/emu-webgpu/${part}`, { recursive: true });
cpSync("node_modules/emu-webgpu-mini/pack", "public/emu-mini", { recursive: true });
cpSync("index.html", "public/index.html");
