/** Files of the origin private file system outside dedicated workers: in pages and service workers. */

import type { OpenFile } from "./opfs.js";
import type { Partial } from "./store.js";

export const openStream: OpenFile = async (handle, rename) => new StreamFile(handle, (await handle.getFile()).size, rename);

/** A stream writes a copy of the file, which replaces it when the stream is closed. */
class StreamFile implements Partial {
  #stream: FileSystemWritableFileStream | null = null;
  /** Size that is on the disk. */
  #flushed: number;

  constructor(
    private readonly handle: FileSystemFileHandle,
    public size: number,
    private readonly rename = async () => {},
  ) {
    this.#flushed = size;
  }

  async read(into: Uint8Array, at: number): Promise<number> {
    const piece = (await this.handle.getFile()).slice(at, at + into.length);
    into.set(new Uint8Array(await piece.arrayBuffer()));
    return piece.size;
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    await (await this.#open()).write({ type: "write", position: at, data: bytes as Uint8Array<ArrayBuffer> });
    this.size = Math.max(this.size, at + bytes.length);
    // Each stream copies what is there: with a stream for each doubling, all copies together take no longer than the file.
    if (this.size >= 2 * this.#flushed) await this.#flush();
  }

  async truncate(size: number): Promise<void> {
    if (size === this.size) return;
    await (await this.#open()).truncate(size);
    this.size = this.#flushed = size;
  }

  async commit(): Promise<void> {
    await this.#flush();
    await this.rename();
  }

  /** Keeps what was written, so that it can be resumed. */
  async close(): Promise<void> {
    await this.#flush().catch(() => {});
  }

  async #open(): Promise<FileSystemWritableFileStream> {
    return (this.#stream ??= await this.handle.createWritable({ keepExistingData: true }));
  }

  async #flush(): Promise<void> {
    const stream = this.#stream;
    this.#stream = null;
    await stream?.close();
    this.#flushed = this.size;
  }
}
