/**
 * A static file server: content types, byte ranges, entity tags, CORS. No dependencies but Node.
 *
 *     node web/server/serve.mjs [PREFIX=]DIR... [--port N] [--host H]
 *
 * A folder is served at `/`, or under its prefix. If several match, the longest prefix wins, then the first that has the file.
 * The `_headers` file of a folder sets headers for some of its files: see {@link parseHeaders}.
 * Tests import {@link serve} and inject faults: see `faults.mjs`.
 */

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, resolve, sep } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".gif": "image/gif",
  ".html": "text/html; charset=utf-8",
  ".ico": "image/x-icon",
  ".jpg": "image/jpeg",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".map": "application/json",
  ".md": "text/markdown; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".mp4": "video/mp4",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
  ".webm": "video/webm",
  ".webp": "image/webp",
};

/** Pages of other origins read packs, with range requests. */
const OPEN = {
  "Access-Control-Allow-Origin": "*",
  "Access-Control-Allow-Headers": "Range",
  "Access-Control-Expose-Headers": "Content-Range, Content-Length, ETag",
  "Cross-Origin-Resource-Policy": "cross-origin",
};

/** The response without faults: what {@link serve} sends unless `interfere` changes it. */
const FAITHFUL = { size: (file) => file.size, ranges: true, body: (stream) => stream };

/**
 * Starts a server.
 *
 * `mounts` are `{ prefix, folder }`. `interfere(request, file, response)` may return changes to {@link FAITHFUL} for a request:
 * `status` instead of the file; `page`, a web page instead of the file; `encoded`, an encoded body instead of the file's bytes,
 * to which ranges then apply; `ranges`; `size`, the file length to report; `body`, which may change the bytes of a stream that
 * starts at offset `from`.
 *
 * Pages of other origins may read the files unless `open` is false. `headers` has the syntax of `_headers`, for request paths.
 *
 * @returns {Promise<{ url: string, port: number, close(): Promise<void> }>}
 */
export async function serve(mounts, { port = 0, host = "127.0.0.1", interfere = async () => ({}), open = true, headers = "" } = {}) {
  const more = parseHeaders(headers);
  const headed = await Promise.all(mounts.map(async (mount) => ({ ...mount, headers: await headersOf(mount.folder) })));
  const server = createServer((request, response) => {
    if (open) for (const [name, value] of Object.entries(OPEN)) response.setHeader(name, value);
    answer(headed, more, interfere, request, response).catch((error) => {
      if (response.headersSent) response.destroy();
      else response.writeHead(error.code === "ENOENT" ? 404 : 500).end();
    });
  });
  await new Promise((done, failed) => server.once("error", failed).listen(port, host, done));
  const address = server.address();
  return {
    url: `http://${host}:${address.port}/`,
    port: address.port,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

async function answer(mounts, more, interfere, request, response) {
  if (request.method === "OPTIONS")
    return void response.writeHead(204, { "Access-Control-Allow-Methods": "GET, HEAD" }).end();
  if (request.method !== "GET" && request.method !== "HEAD")
    return void response.writeHead(405, { Allow: "GET, HEAD" }).end();

  const path = pathOf(request.url);
  const file = path === null ? null : await find(mounts, path);
  const changes = { ...FAITHFUL, ...(await interfere(request, file, response)) };
  if (changes.status) return void response.writeHead(changes.status).end();
  if (changes.page) return void response.writeHead(200, { "Content-Type": TYPES[".html"] }).end(changes.page);
  if (!file) return void response.writeHead(404).end();
  if (file.redirect) return void response.writeHead(301, { Location: file.redirect }).end();

  const encoded = await changes.encoded?.(file);
  const size = encoded?.length ?? changes.size(file);
  const tag = `"${file.size.toString(16)}-${Math.trunc(file.modified).toString(16)}"`;
  response.setHeader("Content-Type", TYPES[extname(file.path).toLowerCase()] ?? "application/octet-stream");
  for (const { pattern, name, value } of file.headers) if (pattern.test(file.name)) response.setHeader(name, value);
  for (const { pattern, name, value } of more) if (pattern.test(path)) response.setHeader(name, value);
  response.setHeader("ETag", tag);
  response.setHeader("Cache-Control", "no-cache");
  if (changes.ranges) response.setHeader("Accept-Ranges", "bytes");
  if (request.headers["if-none-match"] === tag) return void response.writeHead(304).end();

  const fresh = request.headers["if-range"] === undefined || request.headers["if-range"] === tag;
  const range = changes.ranges && fresh ? parseRange(request.headers.range, size) : null;
  if (range === "unsatisfiable") return void response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
  const { from, to } = range ?? { from: 0, to: size };
  if (range) response.setHeader("Content-Range", `bytes ${from}-${to - 1}/${size}`);
  response.setHeader("Content-Length", to - from);
  response.writeHead(range ? 206 : 200);
  if (request.method === "HEAD" || to === from) return void response.end();
  const stream = encoded
    ? Readable.from([encoded.subarray(from, to)])
    : createReadStream(file.path, { start: from, end: to - 1 });
  // A client that disconnects is no error.
  await pipeline(changes.body(stream, from), response).catch(() => stream.destroy());
}

/** The decoded path of a request; `null` if it is not a valid path. */
function pathOf(address) {
  try {
    const path = decodeURIComponent(new URL(address, "http://localhost").pathname);
    return path.includes("\0") ? null : path;
  } catch {
    return null;
  }
}

/** The file at a path; `redirect` for a folder whose URL lacks the trailing slash. */
async function find(mounts, path) {
  const fitting = mounts
    .filter(({ prefix }) => path.startsWith(prefix))
    .sort((a, b) => b.prefix.length - a.prefix.length);
  for (const { prefix, folder, headers } of fitting) {
    const root = resolve(folder);
    let file = resolve(join(root, path.slice(prefix.length)));
    // Nothing outside of the folder, whatever the path is.
    if (file !== root && !file.startsWith(root + sep)) continue;
    let about = await stat(file).catch(() => null);
    if (about?.isDirectory()) {
      if (!path.endsWith("/")) return { redirect: `${encodeURI(path)}/` };
      file = join(file, "index.html");
      about = await stat(file).catch(() => null);
    }
    if (about?.isFile()) {
      const name = `/${path.slice(prefix.length)}`;
      return { path: file, name, headers, size: about.size, modified: about.mtimeMs };
    }
  }
  return null;
}

async function headersOf(folder) {
  return parseHeaders(await readFile(join(folder, "_headers"), "utf8").catch(() => ""));
}

/**
 * Parses a `_headers` file: lines with a path pattern, in which `*` matches anything, each followed by indented lines with the
 * headers for the paths that match.
 *
 * @returns {{ pattern: RegExp, name: string, value: string }[]}
 */
export function parseHeaders(text) {
  const found = [];
  let pattern = null;
  for (const line of text.split("\n")) {
    if (/^\s*(#|$)/.test(line)) continue;
    const header = /^\s+([\w-]+):\s*(.*?)\s*$/.exec(line);
    if (header && pattern) found.push({ pattern, name: header[1], value: header[2] });
    else pattern = new RegExp(`^${line.trim().replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*")}$`);
  }
  return found;
}

/** Parses a single byte range, `to` exclusive; `null` for the whole file, also if several ranges are requested. */
export function parseRange(header, size) {
  const found = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!found || (found[1] === "" && found[2] === "")) return null;
  const [, first, last] = found;
  const from = first === "" ? Math.max(0, size - Number(last)) : Number(first);
  const to = first === "" || last === "" ? size : Math.min(size, Number(last) + 1);
  return from < to ? { from, to } : "unsatisfiable";
}

/** `PREFIX=DIR` or `DIR`. */
export function parseMount(text) {
  const at = text.indexOf("=");
  const prefix = at < 0 ? "/" : `/${text.slice(0, at).replace(/^\/|\/$/g, "")}/`.replace("//", "/");
  return { prefix, folder: text.slice(at + 1) };
}

async function main(args) {
  const options = { port: 8080, host: "127.0.0.1" };
  const mounts = [];
  while (args.length) {
    const arg = args.shift();
    if (arg === "--port") options.port = Number(args.shift());
    else if (arg === "--host") options.host = args.shift();
    else mounts.push(parseMount(arg));
  }
  if (!mounts.length || !Number.isInteger(options.port)) {
    console.error("Nothing to serve. Use: node serve.mjs [PREFIX=]DIR... [--port N] [--host H]");
    process.exitCode = 2;
    return;
  }
  const { url } = await serve(mounts, options);
  console.log(url);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
