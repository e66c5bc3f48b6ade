import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";

import { serveWithFaults } from "../../server/faults.mjs";
import { parseHeaders, parseMount, parseRange, serve } from "../../server/serve.mjs";
import { temporaryFolder } from "./pack.mjs";

async function setUp(t, start = serve) {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, "a.txt"), "0123456789");
  await writeFile(join(folder, "index.html"), "<!doctype html>");
  await writeFile(join(folder, "m.wasm"), "x");
  const server = await start([
    { prefix: "/", folder },
    { prefix: "/deep/", folder },
  ]);
  t.after(() => server.close());
  return { server, get: (path, headers = {}) => fetch(new URL(path, server.url), { headers }) };
}

test("ranges are read as they are meant", () => {
  const cases = [
    ["bytes=0-", { from: 0, to: 10 }],
    ["bytes=3-5", { from: 3, to: 6 }],
    ["bytes=-4", { from: 6, to: 10 }],
    ["bytes=8-99", { from: 8, to: 10 }],
    ["bytes=10-", "unsatisfiable"],
    ["bytes=5-3", "unsatisfiable"],
    ["bytes=-", null],
    ["bytes=0-1,3-4", null],
    ["lines=1-2", null],
    [undefined, null],
  ];
  for (const [header, want] of cases) assert.deepEqual(parseRange(header, 10), want, header);
});

test("files come with their types, tags and ranges", async (t) => {
  const { get } = await setUp(t);
  assert.equal((await get("m.wasm")).headers.get("content-type"), "application/wasm");
  assert.equal((await get("")).headers.get("content-type"), "text/html; charset=utf-8");
  assert.equal(await (await get("deep/a.txt")).text(), "0123456789");
  const part = await get("a.txt", { Range: "bytes=3-5" });
  assert.deepEqual([part.status, part.headers.get("content-range"), await part.text()], [206, "bytes 3-5/10", "345"]);
  assert.equal((await get("a.txt", { Range: "bytes=99-" })).status, 416);
  const tag = part.headers.get("etag");
  assert.equal((await get("a.txt", { "If-None-Match": tag })).status, 304);
  assert.equal((await get("a.txt", { Range: "bytes=3-", "If-Range": '"other"' })).status, 200);
  assert.equal((await get("gone")).status, 404);
  assert.equal((await get("a.txt")).headers.get("access-control-allow-origin"), "*");
});

test("nothing outside of its folders is served", async (t) => {
  const { server } = await setUp(t);
  for (const path of [
    "/../package.json",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/deep/../../etc/passwd",
    "/%00",
    "/%zz",
    "//etc/passwd",
  ]) {
    // Sent unchanged: `fetch` would normalize the path.
    const answer = await new Promise((done) => {
      const socket = connect(server.port, "127.0.0.1", () =>
        socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
      );
      let text = "";
      socket.on("data", (data) => (text += data)).on("end", () => done(text));
    });
    assert.match(answer, /^HTTP\/1\.1 404/, path);
  }
});

test("a mount is a folder, or a prefix and a folder", () => {
  assert.deepEqual(parseMount("web"), { prefix: "/", folder: "web" });
  assert.deepEqual(parseMount("models=/a/b"), { prefix: "/models/", folder: "/a/b" });
  assert.deepEqual(parseMount("/x/y/=z"), { prefix: "/x/y/", folder: "z" });
});

test("a folder's _headers go with the files that they name, under any prefix", async (t) => {
  const folder = await temporaryFolder(t);
  const text = "# a comment\n/lib/worker-*.js\n  Content-Security-Policy: default-src 'none'; connect-src 'self'\n  X-Other: a:b\n\n/a.txt\n  X-A: 1\n";
  await writeFile(join(folder, "_headers"), text);
  await writeFile(join(folder, "a.txt"), "a");
  await mkdir(join(folder, "lib"));
  for (const name of ["worker-cpu.js", "worker-cpuxjs", "other.js"]) await writeFile(join(folder, "lib", name), "");
  const server = await serve([{ prefix: "/", folder }, { prefix: "/deep/", folder }]);
  t.after(() => server.close());
  const header = async (path, name) => (await fetch(new URL(path, server.url))).headers.get(name);
  for (const prefix of ["", "deep/"]) {
    assert.equal(await header(`${prefix}lib/worker-cpu.js`, "content-security-policy"), "default-src 'none'; connect-src 'self'");
    assert.equal(await header(`${prefix}lib/worker-cpu.js`, "x-other"), "a:b");
    for (const path of ["lib/other.js", "lib/worker-cpuxjs", "a.txt"])
      assert.equal(await header(prefix + path, "content-security-policy"), null, path);
    assert.equal(await header(`${prefix}a.txt`, "x-a"), "1");
  }
  assert.deepEqual(parseHeaders("  X: stray\n"), []);
});

test("faults do what they say, so often as they say", async (t) => {
  const { server, get } = await setUp(t, serveWithFaults);
  const text = async (headers) => (await get("a.txt", headers)).text();
  const one = async (fault, headers) => {
    server.faults.splice(0, Infinity, { match: "a.txt", times: 1, ...fault });
    return text(headers);
  };
  assert.equal(await one({ flip: 4 }), "0123556789");
  assert.equal(await one({ flip: 4 }, { Range: "bytes=3-" }), "3556789");
  assert.equal(await one({ truncate: 4 }), "0123");
  assert.equal(await one({ noRange: true }, { Range: "bytes=3-" }), "0123456789");
  assert.equal(await one({ status: 500 }), "");
  assert.match(await one({ page: true }), /^<!DOCTYPE html>/);
  assert.equal(await one({ gzip: "said" }), "0123456789");
  assert.equal(await one({ gzip: "whole" }, { Range: "bytes=3-" }), "3456789");
  assert.notEqual(await one({ gzip: "unsaid" }, { Range: "bytes=3-" }), "3456789");
  await assert.rejects(one({ gzip: "said" }, { Range: "bytes=3-" }), "a part of what is compressed is none of the file");
  assert.equal(await text(), "0123456789", "it healed");
  await assert.rejects(one({ cutAfter: 4 }));
  assert.equal(await one({ match: /\.png$/, status: 500 }), "0123456789");
  assert.deepEqual(
    server.log.map(({ status, from, to }) => [status, from, to]),
    [
      [200, 0, 10],
      [206, 3, 10],
      [200, 0, 4],
      [200, 0, 10],
      [500, 0, 0],
      [200, 0, 0],
      [200, 0, 30],
      [206, 3, 10],
      [206, 3, 30],
      [206, 3, 30],
      [200, 0, 10],
      [200, 0, 4],
      [200, 0, 10],
    ],
  );
});
