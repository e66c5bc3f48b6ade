/** The package as published. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { COMPONENTS } from "../build/manifest.js";
import { VERSION } from "../build/version.js";
import { bytesOf, closure } from "./sizes.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (path) => readFileSync(new URL(path, new URL("..", import.meta.url)), "utf8");
const { version, exports } = JSON.parse(read("package.json"));

/** Budget in bytes for the scripts of a page: the entry and both workers, with all that they import. */
const BUDGET = 60_000;
/** Budgets for what an entry adds to them. */
const EXTRAS = { "prefetch.js": 2_500, "openai.js": 15_000, "ai-sdk.js": 10_000, "react.js": 2_500, "node.js": 5_000, "testing.js": 500 };

test("the version is the same in the package, its code, the packages with packs and the Rust workspace", () => {
  assert.equal(VERSION, version);
  assert.match(read("../../Cargo.toml"), new RegExp(`^version = "${version}"$`, "m"));
  for (const name of ["mini", "smol"]) {
    const carrier = JSON.parse(read(`../${name}/package.json`));
    assert.deepEqual([carrier.name, carrier.version], [`emu-webgpu-${name}`, version]);
    assert.equal(carrier.peerDependencies["emu-webgpu"], `~${version}`);
  }
});

test("the JavaScript keeps within its budgets", (t) => {
  const dist = `${root}dist`;
  const page = closure(dist, ["index.js", "worker-cpu.js", "worker-webgpu.js"]);
  const bytes = bytesOf(dist, page);
  t.diagnostic(`${bytes} of ${BUDGET} bytes`);
  assert.ok(page.size >= 5);
  assert.ok(bytes <= BUDGET, `${bytes} bytes, the budget is ${BUDGET}`);
  const counted = new Set(page);
  for (const [name, budget] of Object.entries(EXTRAS)) {
    const added = [...closure(dist, [name])].filter((file) => !page.has(file));
    for (const file of added) counted.add(file);
    t.diagnostic(`${name}: ${bytesOf(dist, added)} of ${budget} bytes`);
    assert.ok(bytesOf(dist, added) <= budget, `${name} adds ${bytesOf(dist, added)} bytes, its budget is ${budget}`);
  }
  assert.deepEqual(readdirSync(dist).filter((name) => name.endsWith(".js") && !counted.has(name)), [], "scripts without a budget");
});

test("the tarball holds what is needed and nothing else", () => {
  const [{ files }] = JSON.parse(
    execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: root, stdio: ["ignore", "pipe", "ignore"] }),
  );
  const names = files.map(({ path }) => path);
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json"])
    assert.ok(names.includes(name), name);
  for (const { types, default: script } of Object.values(exports).filter((entry) => entry.types)) {
    assert.ok(names.includes(types.slice(2)), types);
    assert.ok(names.includes(script.slice(2)), script);
  }
  const strange = names.filter(
    (name) =>
      !/^(dist\/([a-z0-9-]+(\.d\.ts|\.js)|chunk-[A-Z0-9]+\.js)|wasm\/(cpu|webgpu)\/emu_web(\.js|_bg\.wasm)|LICENSE-\w+|README\.md|package\.json)$/.test(
        name,
      ),
  );
  assert.deepEqual(strange, []);
});

test("every file that a script imports is published, and scripts for pages import nothing of Node", () => {
  const seen = new Set();
  const visit = (name) => {
    if (seen.has(name)) return;
    seen.add(name);
    const text = read(`dist/${name}`);
    assert.doesNotMatch(text, /"node:/, name);
    for (const [, next] of text.matchAll(/(?:from|import)"\.\/([^"]+)"/g)) visit(next);
  };
  for (const name of ["index.js", "testing.js", "prefetch.js", "openai.js", "ai-sdk.js", "react.js", "worker-cpu.js", "worker-webgpu.js"]) visit(name);
  assert.ok(seen.size > 5 && !seen.has("node.js"));
});

test("each worker names its own module and no other, in the form that bundlers know", () => {
  for (const [mine, other] of [
    ["cpu", "webgpu"],
    ["webgpu", "cpu"],
  ]) {
    const worker = read(`dist/worker-${mine}.js`);
    assert.match(worker, new RegExp(`new URL\\("\\.\\./wasm/${mine}/emu_web_bg\\.wasm",import\\.meta\\.url\\)`));
    assert.ok(!worker.includes(`wasm/${other}`));
    assert.match(
      read("dist/index.js"),
      new RegExp(`new Worker\\(new URL\\("\\./worker-${mine}\\.js",import\\.meta\\.url\\),\\{type:"module"`),
    );
  }
  // webpack uses the name of a worker as a file name.
  const names = [...read("dist/index.js").matchAll(/new Worker\(new URL\([^)]*\),\{type:"module",name:"([^"]+)"/g)];
  assert.equal(new Set(names.map(([, name]) => name)).size, 2);
});

test("the README's table of errors has every code, and names only real ones", () => {
  const codes = [...read("src/errors.ts").matchAll(/^ {2}\| "([a-z-]+)"/gm)].map(([, code]) => code);
  const section = read("README.md")
    .split(/^## /m)
    .find((part) => part.startsWith("Errors"));
  const listed = [...section.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, code]) => code);
  assert.ok(codes.length > 20);
  assert.deepEqual([...listed].sort(), [...codes].sort());
});

test("components have the order in which a call needs them", () =>
  assert.deepEqual(COMPONENTS, ["vision", "lm", "decoder", "safety"]));
