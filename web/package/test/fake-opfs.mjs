/** In-memory fakes with the rules of the real ones: the origin private file system (one access handle per file, a quota) and the
 * Cache API. */

const error = (name) => new DOMException(name, name);

class Handle {
  /** Whether files are opened as in a dedicated worker, or as in a page. */
  static streams = false;
  kind = "file";
  bytes = new Uint8Array();
  open = false;
  constructor(folder, name) {
    Object.assign(this, { folder, name });
    // Pages have no access handles.
    if (Handle.streams) this.createSyncAccessHandle = undefined;
  }
  async getFile() {
    if (this.folder.files.get(this.name) !== this) throw error("NotFoundError");
    return new Blob([this.bytes]);
  }
  async createSyncAccessHandle() {
    if (this.open) throw error("NoModificationAllowedError");
    this.open = true;
    return {
      getSize: () => this.bytes.length,
      read: (into, { at }) => {
        const piece = this.bytes.subarray(at, at + into.length);
        into.set(piece);
        return piece.length;
      },
      write: (from, { at }) => {
        // As in Chromium: writes what fits.
        const fits = from.subarray(0, Math.max(0, Folder.quota - at));
        const grown = new Uint8Array(Math.max(this.bytes.length, at + fits.length));
        grown.set(this.bytes);
        grown.set(fits, at);
        this.bytes = grown;
        return fits.length;
      },
      truncate: (size) => (this.bytes = this.bytes.slice(0, size)),
      flush: () => {},
      close: () => (this.open = false),
    };
  }
  /** Writes to a copy, which replaces the file when the stream is closed. */
  async createWritable({ keepExistingData = false } = {}) {
    if (this.open) throw error("NoModificationAllowedError");
    let bytes = keepExistingData ? this.bytes : new Uint8Array();
    Folder.copied += bytes.length;
    this.open = true;
    return {
      write: async ({ position, data }) => {
        if (position + data.length > Folder.quota) throw error("QuotaExceededError");
        const grown = new Uint8Array(Math.max(bytes.length, position + data.length));
        grown.set(bytes);
        grown.set(data, position);
        bytes = grown;
      },
      truncate: async (size) => void (bytes = bytes.slice(0, size)),
      close: async () => {
        this.open = false;
        this.bytes = bytes;
      },
    };
  }
  async move(name) {
    if (this.open) throw error("NoModificationAllowedError");
    this.folder.files.delete(this.name);
    this.name = name;
    this.folder.files.set(name, this);
  }
}

export class Folder {
  static quota = Infinity;
  /** Bytes that opening a stream copied. */
  static copied = 0;
  kind = "directory";
  files = new Map();
  async getDirectoryHandle(name, { create = false } = {}) {
    return this.get(name, create, () => new Folder());
  }
  async getFileHandle(name, { create = false } = {}) {
    return this.get(name, create, () => new Handle(this, name));
  }
  get(name, create, make) {
    if (!this.files.has(name)) {
      if (!create) throw error("NotFoundError");
      this.files.set(name, make());
    }
    return this.files.get(name);
  }
  async removeEntry(name) {
    const entry = this.get(name, false);
    const open = entry instanceof Folder ? [...entry.files.values()].some((file) => file.open) : entry.open;
    if (open) throw error("NoModificationAllowedError");
    this.files.delete(name);
  }
  async *entries() {
    yield* this.files.entries();
  }
}

/** Installs the file system as `navigator.storage`; `streams`: as in a page. `refused`: as in a private window. */
export function fakeOpfs(t, { streams = false, refused = false, persist = async () => true } = {}) {
  Handle.streams = streams;
  const top = new Folder();
  const held = new Map();
  const locks = {
    request: (name, { signal }, work) => {
      const mine = (held.get(name) ?? Promise.resolve()).then(() => (signal.throwIfAborted(), work()));
      held.set(
        name,
        mine.catch(() => {}),
      );
      return mine;
    },
  };
  const getDirectory = async () => {
    if (refused) throw error("SecurityError");
    return top;
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", {
    value: { storage: { getDirectory, persist }, locks },
    configurable: true,
  });
  t.after(() => {
    Folder.quota = Infinity;
    Folder.copied = 0;
    if (before) Object.defineProperty(globalThis, "navigator", before);
    else delete globalThis.navigator;
  });
  return top;
}

/** Installs `caches`. Returns the caches by name. */
export function fakeCaches(t) {
  const all = new Map();
  class FakeCache {
    entries = new Map();
    async put(key, response) {
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.length > Folder.quota) throw error("QuotaExceededError");
      this.entries.set(new URL(key).href, { bytes, headers: new Headers(response.headers) });
    }
    async match(request) {
      const found = this.entries.get(typeof request === "string" ? new URL(request).href : request.url);
      return found && new Response(found.bytes, { headers: found.headers });
    }
    keys = async () => [...this.entries.keys()].map((url) => new Request(url));
    delete = async (key) => this.entries.delete(new URL(key).href);
  }
  globalThis.caches = {
    open: async (name) => all.get(name) ?? all.set(name, new FakeCache()).get(name),
    match: async (key, { cacheName }) => all.get(cacheName)?.match(key),
    has: async (name) => all.has(name),
    keys: async () => [...all.keys()],
    delete: async (name) => all.delete(name),
  };
  t.after(() => delete globalThis.caches);
  return all;
}
