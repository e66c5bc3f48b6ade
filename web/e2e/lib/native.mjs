/** The native program, the reference for the page's results. */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { readPng } from "./pictures.mjs";
import { temporaryFolder } from "./project.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../..", import.meta.url));

/** Path of the program: `EMU_BIN`, otherwise the release build, otherwise the debug build. */
function program() {
  const places = [process.env.EMU_BIN, join(root, "target/release/emu"), join(root, "target/debug/emu")];
  const found = places.find((place) => place && existsSync(place));
  if (!found) throw new Error("The native program is not there. Build it (cargo build --package emu-cli), or name it in EMU_BIN.");
  return found;
}

/** Runs a command on the CPU with `--json` and parses its output. */
async function emu(command, pack, args) {
  const { stdout } = await run(program(), [command, "--json", "--device", "cpu", "--model", pack, ...args], { maxBuffer: 2 ** 24 });
  return stdout.trim().split("\n").map((line) => JSON.parse(line));
}

/** Captions picture files. */
export async function captions(pack, pictures) {
  return (await emu("caption", pack, pictures)).map(({ caption }) => caption);
}

/** Answers a prompt about picture files; with the token counts of prompt and answer. */
export async function answer(pack, pictures, prompt) {
  const events = await emu("chat", pack, [...pictures.flatMap((picture) => ["--image", picture]), prompt]);
  const usage = events.find(({ type }) => type === "usage");
  const text = events.filter(({ type }) => type === "text").map((event) => event.text).join("");
  return { text, promptTokens: usage.prompt_tokens, tokens: usage.tokens };
}

/** Draws a picture: `{ width, height, data }`. */
export async function drawing(pack, prompt, { seed, steps, pictures = [] }) {
  const out = join(await temporaryFolder("drawing"), "out.png");
  const images = pictures.flatMap((picture) => ["--image", picture]);
  await emu("imagine", pack, ["--seed", String(seed), ...(steps ? ["--steps", String(steps)] : []), ...images, "-o", out, prompt]);
  return readPng(await readFile(out));
}
