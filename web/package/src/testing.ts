/** Fault injection for tests of pages that use the package. */

import type { Fault } from "./protocol.js";
import type { Session } from "./session.js";

export type { Fault };

/**
 * Injects a fault into the worker: `device-lost` destroys the GPU device (no effect on the CPU), `panic` kills the WASM module,
 * in the middle of a step if a call is running.
 */
export function provoke(emu: Session, fault: Fault): void {
  emu.provoke(fault);
}
