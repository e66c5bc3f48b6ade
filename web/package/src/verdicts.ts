/**
 * Passed self-tests, kept between visits: a software adapter takes seconds for the test. A verdict holds for one adapter, browser
 * and version of this package, for thirty days, and until a device fails. Where the Cache API is missing or refuses, every load
 * tests.
 */

import { VERSION } from "./version.js";

const CACHE = "emu-webgpu-verdicts";
/** Start of the keys: addresses that are never fetched. Each kind of device has one, so that old verdicts are replaced. */
const KEY = "https://emu-webgpu.invalid/";
/** Milliseconds for which a verdict holds. A graphics driver may change without any sign of it. */
const HOLDS = 30 * 24 * 60 * 60_000;

type Kind = "webgpu" | "cpu";

/** All that a verdict holds for. */
const about = (adapter: string) => [VERSION, navigator.userAgent, adapter].join("\n");

/** Whether the device passed lately. `adapter` describes its adapter. */
export async function hasPassed(kind: Kind, adapter: string): Promise<boolean> {
  try {
    const kept = await caches.match(KEY + kind, { cacheName: CACHE });
    const [time, what] = await kept!.json();
    const age = Date.now() - time;
    // A negative age means that a clock was wrong, then or now.
    return what === about(adapter) && age >= 0 && age < HOLDS;
  } catch {
    return false;
  }
}

export async function keepPassed(kind: Kind, adapter: string): Promise<void> {
  try {
    const verdict = new Response(JSON.stringify([Date.now(), about(adapter)]));
    await (await caches.open(CACHE)).put(KEY + kind, verdict);
  } catch {
    // The next load tests again.
  }
}

/** Drops all verdicts. */
export async function dropVerdicts(): Promise<void> {
  try {
    await caches.delete(CACHE);
  } catch {
    // There are none.
  }
}
