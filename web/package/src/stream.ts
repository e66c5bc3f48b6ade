/** Turns what is pushed into what a `for await` loop pulls. */
export class Stream<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  #end: { error: unknown } | "closed" | null = null;
  #wake: () => void = () => {};

  push(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  close(): void {
    this.#end ??= "closed";
    this.#wake();
  }

  /** What was pushed before is still given; then the loop throws. */
  fail(error: unknown): void {
    this.#end ??= { error };
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (;;) {
      while (this.#items.length) yield this.#items.shift()!;
      if (this.#end === "closed") return;
      if (this.#end) throw this.#end.error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
