import type { PackFiles } from "emu-webgpu";

/** Version of this pack, and of the emu-webgpu that it was made beside. */
export const version: string;

/** Whether a version of emu-webgpu reads this pack: it has the same major and minor number. */
export function fits(other: string): boolean;

/** The pack, for `Emu.load`. Works with and without a bundler. */
export const pack: PackFiles;

/** The address of the pack's folder, where the package is served as it was installed. */
export const url: string;
