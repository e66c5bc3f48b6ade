/** Decides whether and how a machine can run a pack: from `emu.json` alone, before anything large is fetched. */

import type { AdapterInfo } from "./adapter.js";
import { EmuError } from "./errors.js";
import { COMPONENTS, DTYPE_BYTES, type Manifest, type TensorEntry } from "./manifest.js";
import { needsOf } from "./needs.js";
import type { Component, ComponentPlan, DeviceChoice, Expected, Support, Task } from "./types.js";

/** Known capabilities of the machine. */
export interface Machine {
  adapter: AdapterInfo | null;
  simd: boolean;
  /** Bytes of memory; `null` if unknown. */
  memory: number | null;
  /** Bytes of storage left; `null` if unknown, or without a cache. */
  storage: number | null;
}

/** Invocations of the largest workgroup of any kernel. */
const WORKGROUP = 256;
/** Budget for weights, KV cache and activations. A WASM memory ends at 4 GiB; the rest is for the shard being loaded. */
const CPU_MEMORY = 3.5 * 2 ** 30;
/** A shard is read as one array, in JavaScript and in the WASM memory. */
const LARGEST_SHARD = 2 ** 30;
/** Elements per quantization block. Rows of packed matrices are whole blocks. */
const BLOCK = 32;

type TaskPlan = Support["tasks"][number];

/** Chooses a device and gives the reasons. `cached` holds the cached bytes per shard, `expected` the bounds of later requests. */
export function admit(
  manifest: Manifest,
  machine: Machine,
  choice: DeviceChoice,
  cached: ReadonlyMap<string, number>,
  expected: Expected = {},
): Support {
  const { adapter } = machine;
  const needs = (task: Task) => needsOf(manifest.config, task, expected);
  const planFor = (onGpu: boolean) =>
    components(manifest).map((component) => planOf(manifest, component, cached, onGpu));
  const sum = (plan: ComponentPlan[], parts: readonly Component[], of: "download" | "resident" = "resident") =>
    plan.reduce((bytes, part) => bytes + (parts.includes(part.component) ? part[of] : 0), 0);

  const tooLong = manifest.shards.find(({ bytes }) => bytes > LARGEST_SHARD);
  const gpu = gpuObstacles(manifest, adapter, needs);
  const cpu = cpuObstacles(machine.simd, sum(planFor(false), ["vision", "lm"]), needs("caption").working);
  const device = tooLong ? null : choose(choice, adapter, gpu, cpu);
  const plan = planFor(device === "webgpu");

  const reasons: string[] = [];
  if (tooLong) {
    reasons.push(
      `${tooLong.file} has ${formatBytes(tooLong.bytes)}, and a page reads at most ${formatBytes(LARGEST_SHARD)} at once. Convert the model with smaller shards.`,
    );
  }
  reasons.push(...explain(choice, device, adapter, gpu, cpu));

  const taskOf = (task: Task, needed: readonly Component[]): TaskPlan => {
    const parts = needed.filter((part) => manifest.components[part]);
    const { working, binding } = needs(task);
    const bytes = sum(plan, parts) + working;
    const blocked = device === "webgpu" ? gpu.byComponent.filter(([part]) => parts.includes(part)).map(([, why]) => why) : [];
    if (device === "webgpu" && (task !== "draw" || parts.includes("decoder"))) {
      const why = bindingObstacle(task, binding, adapter!);
      if (why) blocked.push(why);
    }
    const fits = device !== null && blocked.length === 0 && (device === "webgpu" || bytes <= CPU_MEMORY);
    reasons.push(...blocked);
    if (device === "cpu" && !fits) {
      reasons.push(cpuLacks(task, bytes));
    }
    // Browsers report machine memory only roughly, and GPU memory not at all: a warning.
    if (fits && machine.memory !== null && bytes > machine.memory) {
      const about = formatBytes(machine.memory);
      reasons.push(`To ${task} takes ${formatBytes(bytes)}, and this machine has about ${about}: it may run out.`);
    }
    return { task, components: parts, download: sum(plan, parts, "download"), resident: bytes, working, binding, fits };
  };
  const caption = taskOf("caption", ["vision", "lm"]);
  const draw = taskOf("draw", COMPONENTS);
  draw.fits &&= draw.components.includes("decoder");
  // A conversation draws where that fits, and otherwise answers in text only.
  let chat: TaskPlan = { ...caption, task: "chat" };
  if (draw.fits) {
    const own = needs("chat");
    const resident = draw.resident - draw.working + own.working;
    const fits = device === "webgpu" ? !bindingObstacle("chat", own.binding, adapter!) : resident <= CPU_MEMORY;
    if (fits) chat = { ...draw, task: "chat", resident, ...own };
  }

  const missing = plan.reduce((bytes, part) => bytes + part.download - part.cached, 0);
  if (device && machine.storage !== null && machine.storage < missing) {
    reasons.push(
      `The browser grants this page ${formatBytes(machine.storage)} of storage, and the pack needs ${formatBytes(missing)}: not all of it can be kept for the next visit.`,
    );
  }
  const { config } = manifest;
  return {
    supported: device !== null,
    reasons: [...new Set(reasons)],
    device,
    adapter,
    model: {
      name: manifest.name,
      license: manifest.license,
      attribution: manifest.attribution,
      imageSize: config.emu.vision.image_size,
      draws: manifest.components.decoder ? (config.decoder?.image_size ?? null) : null,
      checks: manifest.components.safety !== undefined && config.safety != null,
      converses: Boolean(config.emu.prompts?.answered),
    },
    plan,
    tasks: [caption, chat, draw],
  };
}

/** Why a request certainly cannot run on the chosen device; `null` if it may. The engine checks the prompt. */
export function refusal(manifest: Manifest, support: Support, task: Task, expected: Expected): string | null {
  const { device, adapter, tasks } = support;
  const { beams = 1, width = 1, height = 1 } = expected;
  // The engine reports which value is out of range.
  if (!(beams <= 32 && width <= 4096 && height <= 4096)) return null;
  const { working, binding } = needsOf(manifest.config, task, expected, 1);
  if (device === "webgpu") return bindingObstacle(task, binding, adapter!);
  const plan = tasks.find((plan) => plan.task === task)!;
  const bytes = plan.resident - plan.working + working;
  return bytes > CPU_MEMORY ? cpuLacks(task, bytes) : null;
}

function cpuLacks(task: Task, bytes: number): string {
  return `To ${task} takes ${formatBytes(bytes)}, and the CPU path has at most ${formatBytes(CPU_MEMORY)}.`;
}

/** End of a sentence about the size of a buffer. */
const atMost = (largest: number) => `, and one has at most ${formatBytes(largest)} here.`;

/** Bytes of the largest buffer that can be created and bound. */
function largestBinding({ limits }: AdapterInfo): number {
  return Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
}

function bindingObstacle(task: Task, bytes: number, adapter: AdapterInfo): string | null {
  const largest = largestBinding(adapter);
  if (!(bytes > largest)) return null;
  return `To ${task} takes a buffer of ${formatBytes(bytes)}${atMost(largest)} Ask for fewer beams, fewer tokens or a smaller picture.`;
}

/** Throws if the pack cannot run here. @throws {EmuError} `no-webgpu` or `unsupported` */
export function requireSupport(support: Support, device: DeviceChoice): void {
  if (support.supported) return;
  const code = device === "webgpu" && !support.adapter ? "no-webgpu" : "unsupported";
  throw new EmuError(code, support.reasons.join(" ") || "This machine cannot run the pack.");
}

/** The components that a pack has. */
export function components(manifest: Manifest): Component[] {
  return COMPONENTS.filter((component) => manifest.components[component]);
}

function planOf(
  manifest: Manifest,
  component: Component,
  cached: ReadonlyMap<string, number>,
  onGpu: boolean,
): ComponentPlan {
  const { shards, bytes } = manifest.components[component]!;
  const tensors = manifest.tensors.filter((tensor) => tensor.component === component);
  return {
    component,
    download: bytes,
    resident: tensors.reduce((sum, tensor) => sum + residentBytes(manifest, tensor, onGpu), 0),
    cached: shards.reduce((sum, shard) => sum + (cached.get(shard) ?? 0), 0),
  };
}

/** Whether a tensor is an f16 matrix whose rows are whole blocks. Such a matrix stays packed on a GPU. */
function isHalves({ quantization }: Manifest, { name, dtype, shape, logical }: TensorEntry): boolean {
  const inBlocks = shape.length === 2 && shape[0]! > 0 && shape[1]! > 0 && shape[1]! % BLOCK === 0;
  return dtype === "F16" && inBlocks && !logical && !Object.hasOwn(quantization, name);
}

/**
 * Bytes of a tensor on the device. Quantized matrices stay packed; on a GPU, so do f16 matrices. All other float tensors are
 * widened to f32. Convolution weights are dequantized to f32, so their scales and minimums take no memory.
 */
export function residentBytes(manifest: Manifest, tensor: TensorEntry, onGpu: boolean): number {
  const { quantization, tensors } = manifest;
  const { name, dtype, shape, logical } = tensor;
  const elements = (logical ?? shape).reduce((product, side) => product * side, 1);
  if (logical) return elements * 4;
  const of = /^(.*)\.(?:scales|mins)$/.exec(name)?.[1];
  if (of !== undefined && Object.hasOwn(quantization, of))
    return tensors.some((tensor) => tensor.name === of && tensor.logical) ? 0 : elements * 2;
  if (onGpu && isHalves(manifest, tensor)) return elements * 2;
  return elements * (dtype.includes("F") ? 4 : DTYPE_BYTES[dtype]!);
}

interface GpuObstacles {
  /** Why WebGPU cannot be used at all. */
  all: string[];
  /** Why a component cannot be loaded. */
  byComponent: [Component, string][];
}

function gpuObstacles(
  manifest: Manifest,
  adapter: AdapterInfo | null,
  needs: (task: Task) => { binding: number },
): GpuObstacles {
  if (!adapter) return { all: ["There is no WebGPU adapter here."], byComponent: [] };
  const { features, limits } = adapter;
  const lacking = manifest.requires.features.filter((feature) => !features.includes(feature));
  const all = lacking.map((feature) => `The GPU lacks the feature ${feature}, which this pack needs.`);
  if (limits.maxComputeInvocationsPerWorkgroup < WORKGROUP) {
    all.push(
      `The GPU runs workgroups of ${limits.maxComputeInvocationsPerWorkgroup} invocations, and the kernels need ${WORKGROUP}.`,
    );
  }
  const largest = largestBinding(adapter);
  const byComponent: GpuObstacles["byComponent"] = [];
  for (const component of components(manifest)) {
    const tensors = manifest.tensors.filter((tensor) => tensor.component === component);
    // Packed matrices are split by rows, so they need no large buffer.
    const split = (tensor: TensorEntry) =>
      isHalves(manifest, tensor) || (!tensor.logical && Object.hasOwn(manifest.quantization, tensor.name));
    const stuck = tensors.find((tensor) => !split(tensor) && residentBytes(manifest, tensor, true) > largest);
    if (!stuck) continue;
    const bytes = formatBytes(residentBytes(manifest, stuck, true));
    byComponent.push([component, `Tensor ${stuck.name} takes a buffer of ${bytes}${atMost(largest)}`]);
  }
  // Requirements of the pack beyond its tensors.
  const stored = Math.max(
    0,
    ...manifest.tensors.map((tensor) => tensor.shape.reduce((n, side) => n * side, DTYPE_BYTES[tensor.dtype]!)),
  );
  const { largest_buffer, largest_binding } = manifest.requires;
  const wanted = Math.max(
    largest_buffer > limits.maxBufferSize ? largest_buffer : 0,
    largest_binding > limits.maxStorageBufferBindingSize ? largest_binding : 0,
  );
  if (wanted > stored)
    all.push(`The pack needs buffers of ${formatBytes(wanted)}${atMost(largest)}`);
  const captioning = bindingObstacle("caption", needs("caption").binding, adapter);
  if (captioning) all.push(captioning);
  // Nothing runs without the vision encoder and the language model.
  all.push(...byComponent.filter(([component]) => component === "vision" || component === "lm").map(([, why]) => why));
  return { all, byComponent };
}

function cpuObstacles(simd: boolean, resident: number, working: number): string[] {
  const all: string[] = [];
  if (!simd) all.push("This browser's WebAssembly has no vector instructions, which the CPU path needs.");
  if (resident > CPU_MEMORY)
    all.push(
      `The CPU path has at most ${formatBytes(CPU_MEMORY)} for weights, and this pack takes ${formatBytes(resident)}.`,
    );
  else if (resident + working > CPU_MEMORY) all.push(cpuLacks("caption", resident + working));
  return all;
}

function choose(
  choice: DeviceChoice,
  adapter: AdapterInfo | null,
  gpu: GpuObstacles,
  cpu: string[],
): Support["device"] {
  const [onGpu, onCpu] = [gpu.all.length === 0, cpu.length === 0];
  if (choice === "webgpu") return onGpu ? "webgpu" : null;
  if (choice === "cpu") return onCpu ? "cpu" : null;
  if (onGpu && !adapter!.software) return "webgpu";
  if (onCpu) return "cpu";
  return onGpu ? "webgpu" : null;
}

function explain(
  choice: DeviceChoice,
  device: Support["device"],
  adapter: AdapterInfo | null,
  gpu: GpuObstacles,
  cpu: string[],
): string[] {
  if (device === null) {
    const why = choice === "webgpu" ? gpu.all : choice === "cpu" ? cpu : [...gpu.all, ...cpu];
    return why;
  }
  if (choice !== "auto") return [];
  if (device === "webgpu") return adapter?.software ? [...cpu, "A GPU in software is used instead; it is slow."] : [];
  if (adapter?.software && !gpu.all.length)
    return [`The only GPU here is a program (${adapter.name}), so the CPU is used, which is faster.`];
  return [...gpu.all, "So the CPU is used; it is slower than a GPU."];
}

/** Formats a byte count for messages. */
export function formatBytes(bytes: number): string {
  if (bytes < 2 ** 20) return `${Math.ceil(bytes / 1024)} KiB`;
  const [n, unit] = bytes < 2 ** 30 ? [bytes / 2 ** 20, "MiB"] : [bytes / 2 ** 30, "GiB"];
  return `${n.toFixed(n < 10 && !Number.isInteger(n) ? 1 : 0)} ${unit}`;
}
