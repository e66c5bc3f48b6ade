/** For tests of pages that use the package: faults that otherwise come by themselves. */

import type { Fault } from "./protocol.js";
import type { Session } from "./session.js";

export type { Fault };

/**
 * Lets a fault happen in the worker: `device-lost` destroys the GPU's device (nothing happens on the CPU), `panic` kills the
 * WASM module, in the midst of a step if a call is running.
 */
export function provoke(emu: Session, fault: Fault): void {
  emu.provoke(fault);
}
