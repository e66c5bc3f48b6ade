/** A server with injected faults and a log of its responses, for tests of downloads. */

import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";

import { serve } from "./serve.mjs";

/** Chunk size in bytes of a rate-limited server. */
const SIP = 16 << 10;

/**
 * A fault for requests whose path matches `match` (a substring, or a regular expression). The first fault that matches and is not
 * used up applies.
 *
 * @typedef {object} Fault
 * @property {string | RegExp} match
 * @property {number} [times] Number of requests that it affects; all if absent.
 * @property {number} [status] Responds with this status and nothing else.
 * @property {number} [flip] Flips the lowest bit of the byte at this offset.
 * @property {number} [truncate] Truncates the file at this offset.
 * @property {boolean} [noRange] Ignores `Range`.
 * @property {number} [cutAfter] Closes the connection after this many bytes of the response.
 * @property {"said" | "unsaid" | "whole"} [gzip] Sends the file compressed. `said`: ranges are of the compressed file, and
 * `Content-Encoding` is set. `unsaid`: the same, but the header is set on whole responses only. `whole`: ranges are of the file
 * itself.
 * @property {boolean} [page] Responds 200 with a web page, as servers of single-page apps do for a missing file.
 * @property {number} [rate] Bytes per second.
 * @property {number} [delay] Milliseconds before the response.
 */

/**
 * @param {{ prefix: string, folder: string }[]} mounts
 * @returns what {@link serve} returns, with `faults`, which can be changed at any time, and `log`: a `{ path, status, from, to }`
 * per response, where `to` is the offset after the last byte that was passed to the network.
 */
export async function serveWithFaults(mounts, options = {}) {
  const faults = [];
  const log = [];
  const interfere = async (request, file, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const fault = take(faults, pathname) ?? {};
    const entry = { path: pathname, status: 0, from: 0, to: 0, range: request.headers.range ?? null };
    log.push(entry);
    const writeHead = response.writeHead;
    response.writeHead = (status, ...rest) => {
      entry.status = status;
      return writeHead.call(response, status, ...rest);
    };
    if (fault.delay) await sleep(fault.delay, undefined, { ref: false });
    if (fault.status) return { status: fault.status };
    if (fault.page) return { page: "<!DOCTYPE html>\n<html><title>An app</title></html>\n" };
    const ranged = entry.range !== null;
    const gzip = fault.gzip && !(ranged && fault.gzip === "whole");
    if (gzip && !(ranged && fault.gzip === "unsaid")) response.setHeader("Content-Encoding", "gzip");
    return {
      ranges: !fault.noRange,
      ...(gzip && { encoded: async ({ path }) => gzipSync(await readFile(path), { level: 1 }) }),
      size: ({ size }) => Math.min(size, fault.truncate ?? size),
      body: (stream, from) => {
        Object.assign(entry, { from, to: from });
        return spoil(stream, fault, entry, response);
      },
    };
  };
  return { ...(await serve(mounts, { ...options, interfere })), faults, log };
}

/** The fault for a request; counts it as used. */
function take(faults, path) {
  const fits = ({ match }) => (typeof match === "string" ? path.includes(match) : match.test(path));
  const fault = faults.find((fault) => fits(fault) && fault.times !== 0);
  if (fault?.times) fault.times -= 1;
  return fault;
}

async function* spoil(stream, { flip, cutAfter = Infinity, rate }, entry, response) {
  for await (const chunk of stream) {
    if (flip !== undefined && flip >= entry.to && flip < entry.to + chunk.length) chunk[flip - entry.to] ^= 1;
    for (let at = 0; at < chunk.length;) {
      const left = entry.from + cutAfter - entry.to;
      const piece = chunk.subarray(at, at + Math.min(rate ? SIP : chunk.length, left));
      if (piece.length) yield piece;
      entry.to += piece.length;
      at += piece.length;
      if (left <= piece.length) {
        // Bytes passed to the socket must arrive before it is closed.
        await new Promise((sent) => setTimeout(sent, 20));
        return void response.socket?.destroy();
      }
      if (rate) await sleep((piece.length / rate) * 1000);
    }
  }
}

/** Bytes of a file that were sent more than once. */
export function sentTwice(log, path) {
  const spans = log
    .filter((entry) => entry.path.endsWith(path) && entry.to > entry.from)
    .sort((a, b) => a.from - b.from);
  let end = 0;
  let twice = 0;
  for (const { from, to } of spans) {
    twice += Math.max(0, Math.min(end, to) - from);
    end = Math.max(end, to);
  }
  return twice;
}
