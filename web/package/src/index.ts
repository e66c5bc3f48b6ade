export { Emu, type SupportOptions } from "./emu.js";
export type { PrefetchOptions } from "./prefetch.js";
export { EmuError, type EmuErrorCode } from "./errors.js";
export { framesOfVideo, sampleOffsets } from "./video.js";
export { requireVersion, VERSION } from "./version.js";
export type * from "./types.js";
