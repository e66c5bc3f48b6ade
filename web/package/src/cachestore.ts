/** The Cache API as storage, where the browser refuses the origin private file system, as some do in private windows. */

import { type Backend, locked, type Store } from "./store.js";

const PREFIX = "emu-webgpu/";
const SIZE = "Content-Length";
/** Start of the keys of files: addresses that are never fetched. */
const KEY = "https://emu-webgpu.invalid/";

export const cacheApi: Backend = {
  folders: async () => (await caches.keys()).filter((name) => name.startsWith(PREFIX)).map((name) => name.slice(PREFIX.length)),
  open: async (folder, create) =>
    create || (await caches.has(PREFIX + folder)) ? storeIn(PREFIX + folder, await caches.open(PREFIX + folder)) : null,
  delete: async (folder) => void (await caches.delete(PREFIX + folder)),
};

/** A response of the cache cannot be appended to, so partial files are kept in memory only: an interrupted one starts over. */
function storeIn(folder: string, cache: Cache): Store {
  const find = (name: string) => cache.match(KEY + encodeURIComponent(name));
  const put = (name: string, parts: BlobPart[]) => {
    const content = new Blob(parts);
    return cache.put(KEY + encodeURIComponent(name), new Response(content, { headers: { [SIZE]: String(content.size) } }));
  };
  return {
    async sizes() {
      const sizes = new Map<string, number>();
      for (const request of await cache.keys()) {
        const size = (await cache.match(request))?.headers.get(SIZE);
        sizes.set(decodeURIComponent(request.url.slice(KEY.length)), Number(size));
      }
      return sizes;
    },
    readText: async (name) => (await find(name))?.text() ?? null,
    writeText: (name, text) => put(name, [text]),
    async open(name) {
      const blob = await (await find(name))?.blob();
      if (!blob) return null;
      const read = async (into: Uint8Array, at: number) => {
        const piece = blob.slice(at, at + into.length);
        into.set(new Uint8Array(await piece.arrayBuffer()));
        return piece.size;
      };
      return { size: blob.size, read, close: () => {} };
    },
    async partial(name) {
      // Pieces come in order, as views of the buffer that holds the whole file.
      let pieces: Uint8Array<ArrayBuffer>[] = [];
      return {
        size: 0,
        read: () => 0,
        close: () => {},
        write: (bytes) => void pieces.push(bytes as Uint8Array<ArrayBuffer>),
        truncate: () => void (pieces = []),
        commit: () => put(name, pieces),
      };
    },
    remove: async (name) => void (await cache.delete(KEY + encodeURIComponent(name))),
    exclusive: (name, signal, work) => locked(`${folder}/${name}`, signal, work),
  };
}
