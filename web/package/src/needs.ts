/** Memory of a request besides the weights: KV cache and activations. Computed as in `emu inspect` (`needs.rs`). */

import type { Config, EfficientNet } from "./manifest.js";
import type { Expected, Task } from "./types.js";

export interface Needs {
  /** Bytes of the KV cache, and of the activations that are alive at once. */
  working: number;
  /** Bytes of the largest buffer among them, which is bound as a whole. */
  binding: number;
}

const F32 = 4;
/** Default for the maximum of new tokens. */
const NEW_TOKENS = 128;
/** Tokens of a short prompt besides those of its picture. */
const MARKS = 3;
/** Activations alive at once: the input of a layer, its output, and the residual. */
const ALIVE = 3;

/**
 * Memory of a task with a prompt of `tokens` tokens (default: one picture and a short text). Zero if the configuration is
 * incomplete, which the engine rejects.
 */
export function needsOf(config: Config, task: Task, expected: Expected = {}, tokens?: number): Needs {
  try {
    const { vision, causal, namer, requests, lm } = config.emu;
    // Number of embeddings of a picture that is read, and of one that is drawn.
    const spelled = namer?.spelling;
    const read = causal?.queries ?? spelled!.tokens + 1;
    const drawn = causal?.queries ?? spelled!.objects * spelled!.tokens + 2;
    const decoder = task === "caption" ? undefined : config.decoder;
    const { maxNewTokens = NEW_TOKENS, width, height } = expected;
    const beams = task === "draw" ? 1 : (expected.beams ?? 1);
    const prompt = tokens ?? read + MARKS;
    // A conversation that may draw reserves the whole context, unless a picture is the whole answer.
    const room = task === "draw" ? drawn : decoder && beams <= 1 && !requests ? lm.context : maxNewTokens;
    const keys = F32 * lm.kv_heads * lm.head_size * Math.min(lm.context, prompt + room);
    const patches = Math.ceil(vision.image_size / vision.patch_size) ** 2 + 1;
    const activation =
      F32 *
      Math.max(
        (vision.image_size / 2) ** 2 * (vision.stem?.channels[0] ?? 0),
        convolving(vision.image_size, vision.efficientnet),
        patches * Math.trunc(vision.width * Math.max(vision.mlp_ratio, 3)),
        prompt * Math.max(2 * lm.ffn, (lm.heads + 2 * lm.kv_heads) * lm.head_size),
        decoder ? drawing(decoder, width ?? decoder.image_size, height ?? decoder.image_size) : 0,
      );
    // Each beam starts with its own copy of the prompt's KV cache.
    const working = 2 * lm.layers * keys * (beams > 1 ? beams + 1 : 1) + ALIVE * activation;
    if (working > 0) return { working, binding: Math.max(keys * beams, activation) };
  } catch {
    // A field is missing.
  }
  return { working: 0, binding: 0 };
}

/** Number of elements in the largest activation of an EfficientNet over a picture; 0 without one. */
function convolving(size: number, net?: EfficientNet): number {
  if (!net) return 0;
  let [side, inputs] = [Math.ceil(size / 2), net.stem];
  let largest = side ** 2 * inputs;
  for (const { repeats, stride, expand, outputs } of net.stages) {
    for (let repeat = 0; repeat < repeats; repeat++) {
      largest = Math.max(largest, side ** 2 * inputs * expand);
      if (repeat === 0) side = Math.ceil(side / stride);
      inputs = outputs;
    }
  }
  return Math.max(largest, side ** 2 * net.features);
}

/** Number of elements in the largest activation of the diffusion decoder. */
function drawing({ unet, vae }: NonNullable<Config["decoder"]>, width: number, height: number): number {
  let [largest, side] = [0, vae.patch ?? 1];
  const look = (values: number) => {
    largest = Math.max(largest, (width / side) * (height / side) * values);
  };
  // The autoencoder upsamples the features of a coarser level to the size of the finer.
  vae.channels.forEach((channels, level, all) => {
    side *= level ? 2 : 1;
    look(Math.max(channels, all[level + 1] ?? 0));
  });
  // Classifier-free guidance runs the UNet with and without the condition in one batch. Its transformers make eight values per
  // channel; its residual blocks read the coarser level together with the skip connection.
  unet.channels.forEach((channels, level, all) => {
    side *= level ? 2 : 1;
    look(2 * (unet.down[level] === "cross_attention" ? 8 * channels : channels + (all[level + 1] ?? channels)));
  });
  return largest;
}
