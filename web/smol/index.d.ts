import type { PackFiles } from "emu-webgpu";

/** Version of this pack, and of the emu-webgpu that it was made beside. */
export const version: string;

/** The pack, for `Emu.load`. Works with and without a bundler. */
export const pack: PackFiles;

/** The address of the pack's folder, where the package is served as it was installed. */
export const url: string;
