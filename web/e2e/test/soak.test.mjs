/**
 * Many calls on one model: memory must not grow. `EMU_SOAK=1` (cargo xtask soak) runs the full counts, with whole captions, more
 * steps, and both browsers on WebGPU.
 */

import assert from "node:assert/strict";

import { BROWSERS } from "../lib/browsers.mjs";
import * as native from "../lib/native.mjs";
import { across, PACK, picture, SOAK } from "../lib/stage.mjs";

const COUNTS = SOAK ? { captions: 300, drawings: 50 } : { captions: 30, drawings: 10 };
/** Warm-up calls, after which all allocations are done. */
const WARM = 10;
/** Maximum relative growth of memory after that. */
const GROWTH = 0.02;

const names = ["fox.png", "whale.png", "cherry.png", "panda-target.png"];

function soak(device, browsers) {
  across("memory does not grow with the number of calls", { browsers, devices: [device] }, async (stage, t) => {
    const maxNewTokens = SOAK ? 128 : 4;
    // Steps on a software GPU take seconds each.
    const steps = !SOAK || device === "webgpu" ? 2 : 24;
    await stage.load({ components: ["vision", "lm", "decoder"] });
    const start = Date.now();
    const { memory, said } = await stage.page.evaluate(
      async (names, { captions, drawings }, maxNewTokens, steps) => {
        const pictures = [];
        for (const name of names) pictures.push(await lab.bytes(`/pictures/${name}`));
        const memory = [];
        const said = new Set();
        const every = (captions + drawings) / drawings;
        for (let call = 0, captioned = 0, drawn = 0; call < captions + drawings; call++) {
          // Drawings are spread evenly among the captions.
          if (Math.floor((call + 1) / every) > drawn) {
            await lab.emu.generateImage("a fox on a blue background", { seed: drawn++, steps });
          } else {
            said.add(await lab.emu.caption(pictures[captioned++ % pictures.length], { maxNewTokens }));
          }
          memory.push(await lab.emu.memory());
        }
        return { memory, said: [...said] };
      },
      names,
      COUNTS,
      maxNewTokens,
      steps,
    );

    assert.equal(memory.length, COUNTS.captions + COUNTS.drawings);
    for (const kind of ["device", "wasm"]) {
      const used = memory.map((at) => at[kind]);
      const [before, after] = [used[WARM - 1], Math.max(...used.slice(WARM))];
      t.diagnostic(`${kind}: ${used[0]} bytes after the first call, ${before} after call ${WARM}, at most ${after} after that, ${used.at(-1)} at the end`);
      // CPU tensors are in the WASM memory and are not counted separately.
      assert.ok(before > 0 || (kind === "device" && device === "cpu"), `nothing is known of ${kind} memory`);
      assert.ok(after <= before * (1 + GROWTH), `${kind} memory grew from ${before} to ${after} bytes`);
    }
    t.diagnostic(`${COUNTS.captions} captions of at most ${maxNewTokens} tokens and ${COUNTS.drawings} drawings of ${steps} steps in ${((Date.now() - start) / 1000).toFixed(0)} s`);
    if (SOAK) {
      const expected = await native.captions(PACK, names.map(picture));
      assert.deepEqual(said.sort(), [...new Set(expected)].sort(), "captions changed in the course of it");
    } else assert.ok(said.length <= names.length, "captions changed in the course of it");
  });
}

soak("cpu", BROWSERS);
// The other software GPU is three times slower.
soak("webgpu", SOAK ? BROWSERS : ["firefox"]);
