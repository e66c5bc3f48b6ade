/** A queue: items are pushed, and a `for await` loop pulls them. */
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

  /** Items pushed before are still delivered; then the loop throws. */
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
