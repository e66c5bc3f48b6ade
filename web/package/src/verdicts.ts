/** Passed self-tests, kept by device, browser and version: on a software adapter the test takes seconds. */

import type { DeviceInfo } from "./types.js";
import { VERSION } from "./version.js";

/** Thirty days in milliseconds: a driver may change without another name. */
const LIFE = 30 * 864e5;

const open = () => caches.open("emu-webgpu-verdicts");
/** An address that is never fetched. */
const key = ({ kind, name }: DeviceInfo) =>
  `https://emu-webgpu.invalid/${encodeURIComponent([VERSION, kind, name, navigator.userAgent].join())}`;

/** Whether this device passed lately. */
export async function hasPassed(device: DeviceInfo): Promise<boolean> {
  try {
    const at = await (await open()).match(key(device));
    return Date.now() - Number(await at?.text()) < LIFE;
  } catch {
    // Without the Cache API the test runs every time.
    return false;
  }
}

/** Keeps that this device passed, or removes it: an implausible result calls for another test. */
export async function keepVerdict(device: DeviceInfo, passed: boolean): Promise<void> {
  try {
    const cache = await open();
    if (passed) await cache.put(key(device), new Response(String(Date.now())));
    else await cache.delete(key(device));
  } catch {
    // As above.
  }
}
