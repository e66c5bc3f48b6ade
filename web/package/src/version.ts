import { EmuError } from "./errors.js";

/** Version of this package, of its WASM modules and of the packs released with them. */
export const VERSION = "0.1.0";

/** Supported pack format. */
export const FORMAT = 1;

/**
 * Version check for packages that contain a pack: npm only warns about a peer dependency that does not match, and a page with an
 * import map has no npm.
 *
 * @throws {EmuError} `version` if the package `name` was made for a version with another major or minor number.
 */
export function requireVersion(name: string, version: string): void {
  const line = (full: string) => full.replace(/\.[^.]*$/, "");
  if (line(version) === line(VERSION)) return;
  throw new EmuError("version", `${name} ${version} does not go with emu-webgpu ${VERSION}. Install the same version of both.`);
}
