/** Times of an answer's phases, measured where its events arise. */

import type { WasmEvent } from "./wasm.js";

export interface Paces {
  seconds: number;
  firstTokenSeconds: number | null;
  prefillTokensPerSecond: number | null;
  decodeTokensPerSecond: number | null;
}

export class Pace {
  readonly #now: () => number;
  #start: number;
  /** When the last event came. */
  #mark: number;
  #first: number | null = null;
  /** Seconds between the tokens. */
  #decoding = 0;

  /** @param now a clock in milliseconds */
  constructor(now = () => performance.now()) {
    this.#now = now;
    this.#start = this.#mark = now();
  }

  /** Takes an event of the answer. Work before an event that is no token, such as the drawing of a picture, is no decoding. */
  take({ type }: WasmEvent): void {
    const now = this.#now();
    if (type === "text" || type === "decode") {
      if (this.#first === null) this.#first = (now - this.#start) / 1000;
      else this.#decoding += (now - this.#mark) / 1000;
    }
    this.#mark = now;
  }

  /** The end of the answer; the next one begins. */
  end({ prefillTokens, tokens }: { prefillTokens: number; tokens: number }): Paces {
    const [first, now] = [this.#first, this.#now()];
    const paces = {
      seconds: (now - this.#start) / 1000,
      firstTokenSeconds: first,
      prefillTokensPerSecond: first ? prefillTokens / first : null,
      decodeTokensPerSecond: this.#decoding > 0 ? Math.max(0, tokens - 1) / this.#decoding : null,
    };
    this.#start = this.#mark = now;
    [this.#first, this.#decoding] = [null, 0];
    return paces;
  }
}
