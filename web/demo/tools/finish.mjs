/* Runs after tsc: strips the indentation of its output, and copies the models' examples. */

import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const dist = new URL("../dist/", import.meta.url);
const examples = new URL("../examples/", import.meta.url);
const models = new URL("../../../models/", import.meta.url);

/** Indentation is a seventh of the bytes. Nothing else in tsc's output is changed. */
function outdent(file) {
  const lines = readFileSync(file, "utf8").split("\n");
  for (const line of lines) {
    // Leading space matters only in a template literal that spans lines. There are none.
    if ((line.match(/`/g)?.length ?? 0) % 2) throw new Error(`${file.pathname} holds a template over several lines: ${line}`);
  }
  writeFileSync(file, lines.map((line) => line.trimStart()).join("\n"));
}

/** The list of a bundled model's demo and the pictures that it names. */
function bringExamples(name) {
  const from = new URL(`emu-${name}/demo/`, models);
  const to = new URL(`${name}/`, examples);
  mkdirSync(to, { recursive: true });
  const list = readFileSync(new URL("demo.json", from), "utf8");
  writeFileSync(new URL("demo.json", to), list);
  const named = JSON.parse(list).steps.flatMap(({ items }) => items.flatMap(({ images = [] }) => images));
  for (const picture of new Set(named)) copyFileSync(new URL(picture, from), new URL(picture, to));
}

for (const name of readdirSync(dist).filter((name) => name.endsWith(".js"))) outdent(new URL(name, dist));
rmSync(examples, { recursive: true, force: true });
for (const name of ["mini", "smol"]) bringExamples(name);
