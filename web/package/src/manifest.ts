/** `emu.json`: parsed and validated before anything else is fetched. */

import { EmuError } from "./errors.js";
import type { Component } from "./types.js";
import { FORMAT } from "./version.js";

export interface FileEntry {
  /** A plain name in the pack's folder. */
  file: string;
  bytes: number;
  /** 64 lower-case hexadecimal digits. */
  sha256: string;
}

export type Scheme = "q8" | "q4" | "q4_1";

export interface TensorEntry {
  name: string;
  dtype: string;
  shape: number[];
  /** The shape in the model, if it does not follow from the stored one: convolution weights. */
  logical?: number[];
  component: string;
}

/** The fields of a manifest that the page needs. The engine reads all of it, and checks where the rows of tensors lie. */
export interface Manifest {
  format: number;
  name: string;
  license: string;
  attribution: string;
  config: Config;
  components: Partial<Record<Component, { shards: string[]; bytes: number }>>;
  shards: FileEntry[];
  files: FileEntry[];
  tensors: TensorEntry[];
  quantization: Record<string, Scheme>;
  requires: { features: string[]; largest_buffer: number; largest_binding: number };
}

/** The fields of a configuration that determine memory. Only the picture sizes are validated here; the engine reads all of it. */
export interface Config {
  emu: {
    vision: {
      image_size: number;
      patch_size: number;
      width: number;
      mlp_ratio: number;
      stem?: { channels: number[] };
      efficientnet?: EfficientNet;
    };
    causal?: { queries: number };
    namer?: { spelling: { objects: number; tokens: number } };
    /** Detects draw requests from the language model, which then starts no pictures in its own answers. */
    requests?: object;
    /** `answered`: the text that ends an answer before the next turn. */
    prompts?: { answered?: string };
    lm: { heads: number; kv_heads: number; head_size: number; ffn: number; layers: number; context: number };
  };
  decoder?: {
    image_size: number;
    unet: { channels: number[]; down: string[] };
    vae: { channels: number[]; patch?: number };
  };
  safety?: object;
}

/** A convolutional vision encoder. */
export interface EfficientNet {
  stem: number;
  stages: { repeats: number; stride: number; expand: number; outputs: number }[];
  features: number;
}

/** In load order. */
export const COMPONENTS: readonly Component[] = ["vision", "lm", "decoder", "safety"];
export const TOKENIZER = "tokenizer.json";

/** Stored bytes per element. */
export const DTYPE_BYTES: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  U8: 1,
  BOOL: 1,
};
/** Quantized values per U32. */
export const PER_WORD: Readonly<Record<Scheme, number>> = { q8: 4, q4: 8, q4_1: 8 };

type Json = Record<string, unknown>;

/** Parses and validates a manifest. @throws {EmuError} `bad-manifest`, `unknown-format` or `bad-name`. */
export function parseManifest(text: string): Manifest {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw bad("it is not JSON, so there may be no pack at this address");
  }
  if (!isObject(json) || !("format" in json)) throw bad("it has no format");
  if (json.format !== FORMAT) {
    const found = JSON.stringify(json.format);
    throw new EmuError(
      "unknown-format",
      `emu.json has the pack format ${found}, but only ${FORMAT} is read here. Update emu-webgpu or convert the model again.`,
    );
  }
  const files = new Map<string, FileEntry>();
  const entries = (field: string, value: unknown): FileEntry[] => {
    const list = array(field, value).map((entry) => fileEntry(field, entry));
    for (const entry of list) {
      if (files.has(entry.file) || entry.file === "emu.json") throw bad(`it lists ${entry.file} twice`);
      files.set(entry.file, entry);
    }
    return list;
  };
  const shards = entries("shards", json.shards);
  const manifest: Manifest = {
    format: FORMAT,
    name: string("name", json.name),
    license: string("license", json.license),
    attribution: string("attribution", json.attribution ?? ""),
    config: config(json.config),
    components: components(json.components, shards),
    shards,
    files: entries("files", json.files ?? []),
    tensors: array("tensors", json.tensors).map(tensor),
    quantization: quantization(json.quantization ?? {}),
    requires: requires(json.requires ?? {}),
  };
  if (!manifest.files.some(({ file }) => file === TOKENIZER)) throw bad(`it lists no ${TOKENIZER}`);
  return manifest;
}

function fileEntry(field: string, value: unknown): FileEntry {
  const entry = object(field, value);
  const file = checkFileName(entry.file);
  if (typeof entry.sha256 !== "string" || !/^[0-9a-f]{64}$/.test(entry.sha256)) {
    throw bad(`the SHA-256 of ${file} is not 64 lower-case hexadecimal digits`);
  }
  return { file, bytes: count(`bytes of ${file}`, entry.bytes), sha256: entry.sha256 };
}

/** Accepts plain file names only: nothing that could leave the pack's folder or be hidden in it. */
export function checkFileName(name: unknown): string {
  if (typeof name === "string" && /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/.test(name)) return name;
  const shown = JSON.stringify(name)?.slice(0, 200);
  throw new EmuError("bad-name", `${shown} is not a plain file name. Do not use this pack.`);
}

function components(value: unknown, shards: FileEntry[]): Manifest["components"] {
  const lengths = new Map(shards.map((shard) => [shard.file, shard.bytes]));
  const owners = new Map<string, string>();
  const found: Manifest["components"] = {};
  for (const [name, given] of Object.entries(object("components", value))) {
    const component = object("components", given);
    const files = array("shards", component.shards).map(checkFileName);
    let bytes = 0;
    for (const file of files) {
      const length = lengths.get(file);
      if (length === undefined) throw bad(`component \`${name}\` needs ${file}, which is not listed`);
      if (owners.has(file)) throw bad(`${file} belongs to two components`);
      owners.set(file, name);
      bytes += length;
    }
    if (component.bytes !== bytes) throw bad(`component \`${name}\` does not have the bytes of its shards, ${bytes}`);
    // Components of later versions are validated and ignored.
    if (COMPONENTS.includes(name as Component)) found[name as Component] = { shards: files, bytes };
  }
  for (const name of ["vision", "lm"] as const) if (!found[name]) throw bad(`it has no component \`${name}\``);
  return found;
}

function tensor(value: unknown): TensorEntry {
  const entry = object("tensors", value);
  const name = string("name of a tensor", entry.name);
  const shape = array(`shape of ${name}`, entry.shape).map((side) => count(`shape of ${name}`, side));
  if (typeof entry.dtype !== "string" || !(entry.dtype in DTYPE_BYTES))
    throw bad(`tensor \`${name}\` has no known type`);
  const component = string(`component of ${name}`, entry.component);
  const given = { name, dtype: entry.dtype, shape, component };
  if (entry.logical === undefined) return given;
  const logical = array(`logical shape of ${name}`, entry.logical);
  return { ...given, logical: logical.map((side) => count(`logical shape of ${name}`, side)) };
}

function quantization(value: unknown): Record<string, Scheme> {
  const schemes = object("quantization", value);
  for (const [name, scheme] of Object.entries(schemes)) {
    if (!Object.hasOwn(PER_WORD, String(scheme)))
      throw bad(`tensor \`${name}\` has the unknown scheme ${JSON.stringify(scheme)}`);
  }
  return schemes as Record<string, Scheme>;
}

function requires(value: unknown): Manifest["requires"] {
  const given = object("requires", value);
  return {
    features: array("features", given.features ?? []).map((feature) => string("features", feature)),
    largest_buffer: count("largest_buffer", given.largest_buffer ?? 0),
    largest_binding: count("largest_binding", given.largest_binding ?? 0),
  };
}

function config(value: unknown): Config {
  const given = object("config", value);
  const vision = object("config.emu.vision", object("config.emu", given.emu).vision);
  count("config.emu.vision.image_size", vision.image_size);
  if (given.decoder != null) count("config.decoder.image_size", object("config.decoder", given.decoder).image_size);
  return given as unknown as Config;
}

function bad(reason: string): EmuError {
  return new EmuError("bad-manifest", `emu.json cannot be used: ${reason}. Convert or download the pack again.`);
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function object(field: string, value: unknown): Json {
  if (!isObject(value)) throw bad(`${field} is not an object`);
  return value;
}

function array(field: string, value: unknown): unknown[] {
  if (!Array.isArray(value)) throw bad(`${field} is not a list`);
  return value;
}

function string(field: string, value: unknown): string {
  if (typeof value !== "string") throw bad(`${field} is not a string`);
  return value;
}

function count(field: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw bad(`${field} is not a count`);
  return value as number;
}
