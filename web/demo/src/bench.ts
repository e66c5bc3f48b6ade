/** The benchmark section of the panel. */

import { $, row, show } from "./dom.js";
import { isAbort, told } from "./errors.js";
import { seconds } from "./format.js";
import type { costsEach } from "./measure.js";
import { copyText } from "./picture.js";
import type { Session } from "./session.js";

const counts = ({ launches, submits, read_back_bytes }: ReturnType<typeof costsEach>) => `${launches}, ${submits}, ${read_back_bytes}`;

/** Binds the section. `begin` returns the abort signal of the run, or null while something else runs. */
export function bindBenchmark(session: Session, begin: () => AbortSignal | null, end: () => void): void {
  const status = $("bench-status");
  const json = $("bench-json");
  const start = $<HTMLButtonElement>("bench-run");
  start.addEventListener("click", async () => {
    const signal = begin();
    if (!signal) {
      status.textContent = "Something is running. Stop it or wait until it ends, then start the benchmark.";
      return;
    }
    start.disabled = true;
    show("bench-result", false);
    try {
      const { measure } = await import("./measure.js");
      const result = await measure(session, signal, (text) => (status.textContent = `${text} …`));
      json.textContent = JSON.stringify(result, null, 2);
      const ms = (value: number) => seconds(value / 1000);
      $("bench-summary").replaceChildren(
        row("Description", ms(result.caption.median_ms)),
        row("First word of an answer", ms(result.chat.first_token_ms)),
        row("Each further token", `${result.chat.ms_per_token} ms`),
        ...(session.used?.kind === "webgpu" ? [row("Dispatches, submissions, bytes read back per token", counts(result.chat.per_token))] : []),
        ...(result.draw ? [row(`Drawing, ${result.draw.steps} steps`, ms(result.draw.whole_ms)), row("One step", `${result.draw.ms_per_step} ms`)] : []),
        ...(result.draw && session.used?.kind === "webgpu" ? [row("Dispatches, submissions, bytes read back per step", counts(result.draw.per_step))] : []),
      );
      show("bench-result", true);
      status.textContent = "Done.";
    } catch (error) {
      status.textContent = isAbort(error) ? "Stopped." : told(error);
    } finally {
      start.disabled = false;
      end();
    }
  });
  const copy = $<HTMLButtonElement>("bench-copy");
  copy.addEventListener("click", () => void copyText(copy, json.textContent ?? ""));
}
