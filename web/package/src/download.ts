/** Obtains one file of a pack, from the store or the network: verified while it streams, resumed after an interruption. */

import { isPage, pageAt } from "./answer.js";
import { abortError, EmuError, isAbort, throwIfAborted } from "./errors.js";
import { formatBytes } from "./admission.js";
import type { FileEntry } from "./manifest.js";
import { fileUrl, type PackAddress } from "./pack.js";
import { CHECKPOINT, noStore, type Partial, type Store, storedName } from "./store.js";
import { onAbort, sleep, turn } from "./turn.js";

/** Where files come from and where they are stored. */
export interface Source {
  pack: PackAddress;
  store: Store;
  fetch: typeof fetch;
  /** A hasher for a file. `update` gets consecutive pieces of `bytes`, the buffer that receives the file. */
  newHasher(bytes: Uint8Array): { update(bytes: Uint8Array): void; hex(): string | Promise<string>; free(): void };
  /** Called when the store fails; later downloads are not stored. What it throws ends the download. */
  onStoreFailure(error: unknown): void;
  /** Milliseconds before the first retry; doubled for each further one. */
  backoff?: number;
  /** Milliseconds without a byte after which a connection counts as dead. */
  patience?: number;
}

/** Receives byte increments. `loaded` is negative when a file has to start over; `fetched` never is. */
export type Meter = (loaded: number, fetched: number) => void;

const HASH_STEP = 256 << 10;
/** Maximum retries without progress between them. */
const RETRIES = 4;

/**
 * Returns the verified bytes of a file.
 *
 * @throws {EmuError} `fetch`, `not-found`, `short-file`, `long-file`, `wrong-hash` or `out-of-memory`.
 */
export async function obtain(source: Source, entry: FileEntry, signal: AbortSignal, meter: Meter): Promise<Uint8Array> {
  throwIfAborted(signal);
  return source.store.exclusive(storedName(entry), signal, async () => {
    const file = new Download(source, entry, signal, meter);
    try {
      return (await file.fromStore()) ?? (await file.fromNetwork());
    } finally {
      await file.close();
    }
  });
}

/** A transient failure: another attempt may succeed, after `after` milliseconds. */
class Hiccup extends Error {
  constructor(
    readonly final: EmuError,
    readonly after = 0,
  ) {
    super(final.message);
  }
}

class Download {
  readonly #bytes: Uint8Array;
  readonly #name: string;
  #store: Store;
  #partial: Partial | null = null;
  #hasher;
  /** Bytes received so far, and bytes hashed and stored. */
  #have = 0;
  #settled = 0;
  /** Whether the bytes so far are from an earlier session. */
  #resumed = false;
  #reload = false;
  /** Whether to request the whole file and skip the bytes received: range requests failed. */
  #whole = false;

  readonly #source: Source;
  readonly #entry: FileEntry;
  readonly #signal: AbortSignal;
  readonly #meter: Meter;

  constructor(source: Source, entry: FileEntry, signal: AbortSignal, meter: Meter) {
    [this.#source, this.#entry, this.#signal, this.#meter] = [source, entry, signal, meter];
    this.#name = storedName(entry);
    this.#store = source.store;
    try {
      this.#bytes = new Uint8Array(entry.bytes);
    } catch (cause) {
      const what = `There is no memory for the ${formatBytes(entry.bytes)} of ${entry.file}. Close other tabs and try again.`;
      throw new EmuError("out-of-memory", what, { cause });
    }
    this.#hasher = source.newHasher(this.#bytes);
  }

  /** The file from the store; `null` if it is missing, incomplete or damaged. */
  async fromStore(): Promise<Uint8Array | null> {
    try {
      const whole = await this.#store.open(this.#name);
      if (!whole) return null;
      try {
        if (whole.size === this.#entry.bytes) await this.#take(whole, this.#entry.bytes);
      } finally {
        await whole.close();
      }
      if (await this.#isRight()) return this.#bytes;
      this.#forget();
      await this.#store.remove(this.#name);
    } catch (error) {
      if (isAbort(error)) throw error;
      await this.#giveUpStore(error);
    }
    return null;
  }

  async fromNetwork(): Promise<Uint8Array> {
    await this.#resume();
    let failures = 0;
    for (let mismatches = 0; ;) {
      const before = this.#have;
      try {
        await this.#attempt();
        if (await this.#isRight()) break;
        if (mismatches++)
          throw this.#error(
            "wrong-hash",
            "does not have the SHA-256 that the manifest says",
            "The server's copy is damaged; upload it again",
          );
        await this.#startOver();
      } catch (error) {
        throwIfAborted(this.#signal);
        if (!(error instanceof Hiccup)) throw error;
        // A file that ends twice at the same byte really ends there.
        if (error.final.code === "short-file" && this.#have === before) throw error.final;
        failures = this.#have - before >= CHECKPOINT ? 1 : failures + 1;
        if (failures > RETRIES) throw error.final;
        // Range requests for a compressed file may fail in ways that look like a broken connection.
        if (failures === RETRIES) this.#whole = true;
        const delay = (this.#source.backoff ?? 500) * 2 ** (failures - 1) * (0.75 + Math.random() / 2);
        await sleep(Math.max(delay, error.after), this.#signal);
      }
    }
    await this.#commit();
    return this.#bytes;
  }

  async close(): Promise<void> {
    this.#hasher.free();
    await this.#partial?.close();
  }

  /** Reads and hashes the first `size` bytes of a stored file. */
  async #take(
    from: { read(into: Uint8Array, at: number): Promise<number> | number },
    size: number,
  ): Promise<void> {
    while (this.#settled < size) {
      const piece = this.#bytes.subarray(this.#settled, Math.min(this.#settled + CHECKPOINT, size));
      const read = await from.read(piece, this.#settled);
      if (read !== piece.length) throw new Error(`The stored ${this.#entry.file} cannot be read.`);
      this.#hash(piece);
      this.#settled += read;
      this.#have = this.#settled;
      this.#meter(read, 0);
      await turn();
      throwIfAborted(this.#signal);
    }
  }

  /** Resumes at the last checkpoint of an earlier session: bytes after it may not have reached the disk. */
  async #resume(): Promise<void> {
    try {
      this.#partial = await this.#store.partial(this.#name);
      const { size } = this.#partial;
      const whole = size > this.#entry.bytes ? 0 : size - (size % CHECKPOINT);
      await this.#partial.truncate(whole);
      await this.#take(this.#partial, whole);
      this.#resumed = whole > 0;
    } catch (error) {
      if (isAbort(error)) throw error;
      this.#forget();
      await this.#giveUpStore(error);
    }
  }

  /** One request, from the first missing byte to the end. */
  async #attempt(): Promise<void> {
    if (this.#have === this.#entry.bytes && this.#have > 0) return this.#settle(this.#have);
    const stop = new AbortController();
    const abort = () => stop.abort();
    const unlisten = onAbort(this.#signal, abort);
    const patience = this.#source.patience ?? 30_000;
    let timer = setTimeout(abort, patience);
    let ranged = false;
    try {
      const response = await this.#request(stop.signal);
      ranged = response.status === 206;
      // A server without range support sends the file from its start.
      let skip = ranged ? 0 : this.#have;
      let first = !ranged;
      const reader = response.body!.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(timer);
        timer = setTimeout(abort, patience);
        if (first && isPage(value)) {
          stop.abort();
          throw this.#error(
            "not-found",
            `could not be fetched: ${pageAt(response.url || this.#address)}`,
            "Its server answers so where a file is missing: check the pack's address, and upload what is missing",
          );
        }
        first = false;
        const fresh = value.subarray(Math.min(skip, value.length));
        skip -= value.length - fresh.length;
        if (this.#have + fresh.length > this.#entry.bytes) {
          stop.abort();
          if (response.status === 206) throw await this.#otherBytes();
          throw this.#error(
            "long-file",
            `has more than the ${this.#entry.bytes} bytes that the manifest says`,
            "Upload the pack again",
          );
        }
        this.#bytes.set(fresh, this.#have);
        this.#have += fresh.length;
        this.#resumed &&= fresh.length === 0;
        ranged = false;
        this.#meter(fresh.length, value.length);
        while (this.#have - this.#settled >= CHECKPOINT) await this.#settle(this.#settled + CHECKPOINT);
      }
    } catch (error) {
      if (this.#signal.aborted) throw abortError();
      if (error instanceof Hiccup || error instanceof EmuError) throw error;
      // A range response without a readable byte: for example, part of a body that is compressed as a whole.
      if (ranged && !stop.signal.aborted) this.#whole = true;
      const why = stop.signal.aborted ? `nothing came for ${patience / 1000} seconds` : "the connection failed";
      throw new Hiccup(this.#fetchError(why, error));
    } finally {
      clearTimeout(timer);
      unlisten();
    }
    if (this.#have < this.#entry.bytes) {
      throw new Hiccup(
        this.#error("short-file", `ends after ${this.#have} of ${this.#entry.bytes} bytes`, "Upload the pack again"),
      );
    }
    await this.#settle(this.#have);
  }

  async #request(signal: AbortSignal): Promise<Response> {
    const { fetch } = this.#source;
    const headers: HeadersInit = this.#have > 0 && !this.#whole ? { Range: `bytes=${this.#have}-` } : {};
    // A file that the store keeps need not be in the browser's HTTP cache as well.
    const cache = this.#reload ? "reload" : this.#store === noStore ? "default" : "no-store";
    const response = await fetch(this.#address, { headers, signal, cache });
    const { status } = response;
    if (status === 200 || (status === 206 && this.#startsRight(response))) return response;
    await response.body?.cancel();
    if (status === 206 || (status === 416 && this.#resumed)) throw await this.#otherBytes();
    if (status === 416 && !this.#whole) {
      // The bytes received may exceed the length of the compressed file.
      this.#whole = true;
      throw new Hiccup(this.#fetchError("the server refused the rest"));
    }
    if (status === 416)
      throw this.#error("short-file", `ends before byte ${this.#have} of ${this.#entry.bytes}`, "Upload the pack again");
    if (status === 404 || status === 410) throw this.#error("not-found", "is not there", "Check the pack's address");
    const error = this.#fetchError(`the server answered ${status}`);
    const passing = status >= 500 || status === 408 || status === 425 || status === 429;
    if (!passing) throw error;
    const after = Number(response.headers.get("Retry-After"));
    throw new Hiccup(error, after > 0 ? Math.min(after, 30) * 1000 : 0);
  }

  get #address(): string {
    return fileUrl(this.#source.pack, this.#entry.file);
  }

  /** Whether a range response is the requested range of this file. The total length of a compressed file differs. */
  #startsRight({ headers }: Response): boolean {
    // Other origins may hide the header; the hash then detects a wrong range.
    const range = /^bytes (\d+)-\d+\/(\d+|\*)/.exec(headers.get("Content-Range") ?? "");
    return !range || (Number(range[1]) === this.#have && (range[2] === "*" || Number(range[2]) === this.#entry.bytes));
  }

  /** Hashes and stores the bytes up to `to`: a checkpoint. */
  async #settle(to: number): Promise<void> {
    const piece = this.#bytes.subarray(this.#settled, to);
    if (piece.length === 0) return;
    this.#hash(piece);
    try {
      await this.#partial?.write(piece, this.#settled);
    } catch (error) {
      await this.#giveUpStore(error);
    }
    this.#settled = to;
  }

  /** Hashes in small steps: each is copied into the WASM memory, which never shrinks. */
  #hash(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += HASH_STEP) this.#hasher.update(bytes.subarray(at, at + HASH_STEP));
  }

  async #isRight(): Promise<boolean> {
    return this.#settled === this.#entry.bytes && (await this.#hasher.hex()) === this.#entry.sha256;
  }

  async #commit(): Promise<void> {
    try {
      await this.#partial?.commit();
    } catch (error) {
      await this.#giveUpStore(error);
    }
  }

  /** Starts over after a wrong range. */
  async #otherBytes(): Promise<Hiccup> {
    await this.#startOver();
    return new Hiccup(this.#fetchError("the server sent other bytes than it was asked for"));
  }

  /** Discards everything so far, which was wrong, and avoids ranges, which may be wrong too. */
  async #startOver(): Promise<void> {
    this.#forget();
    this.#reload = this.#whole = true;
    try {
      await this.#partial?.truncate(0);
    } catch (error) {
      await this.#giveUpStore(error);
    }
  }

  #forget(): void {
    this.#meter(-this.#have, 0);
    this.#have = this.#settled = 0;
    this.#resumed = false;
    this.#hasher.free();
    this.#hasher = this.#source.newHasher(this.#bytes);
  }

  /** Continues without the store, and frees the space that this file took. */
  async #giveUpStore(error: unknown): Promise<void> {
    const [store, partial] = [this.#store, this.#partial];
    this.#store = noStore;
    this.#partial = null;
    try {
      await partial?.close();
      await store.remove(`${this.#name}.part`);
    } catch {
      // Another tab has the file open, or the disk is gone: the original error is reported.
    }
    this.#source.onStoreFailure(error);
  }

  #fetchError(why: string, cause?: unknown): EmuError {
    const what = `${this.#entry.file} could not be fetched: ${why}. Check the connection and try again.`;
    return new EmuError("fetch", what, { cause });
  }

  #error(code: string, what: string, advice: string): EmuError {
    return new EmuError(code, `${this.#entry.file} ${what}. ${advice}.`);
  }
}
