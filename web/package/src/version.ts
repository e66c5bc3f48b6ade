import { EmuError } from "./errors.js";

/** Version of this package, of the WASM modules and of the packs made beside them. */
export const VERSION = "0.1.0";

/** The pack format that is read. */
export const FORMAT = 1;

/**
 * For packages that carry a pack: npm only warns of a peer that does not fit, and a page with an import map has no npm.
 *
 * @throws {EmuError} `version` where the package of this name was made beside a version with another major or minor number.
 */
export function requireVersion(name: string, version: string): void {
  const line = (full: string) => full.replace(/\.[^.]*$/, "");
  if (line(version) === line(VERSION)) return;
  throw new EmuError("version", `${name} ${version} does not go with emu-webgpu ${VERSION}. Install the same version of both.`);
}
