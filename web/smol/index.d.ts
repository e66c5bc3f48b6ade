import type { PackFiles } from "emu-webgpu";

/** Version of this pack, and of the emu-webgpu that it was made for. */
export const version: string;

/** The pack, for `Emu.load`. Works with and without a bundler. */
export const pack: PackFiles;

/** URL of the pack's folder, if the package is served as installed. */
export const url: string;
