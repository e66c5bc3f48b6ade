/** What the published types of `emu-webgpu/ai-sdk` and `emu-webgpu/react` must accept and reject. Never run. */

import type { ImageModelV4, LanguageModelV4, ProviderV4 } from "@ai-sdk/provider";
import { createProviderRegistry, generateImage, generateText, streamText } from "ai";

import { Emu, type Progress } from "emu-webgpu";
import { createEmu, type EmuTextOptions } from "emu-webgpu/ai-sdk";
import { prefetch } from "emu-webgpu/prefetch";
import { useEmu } from "emu-webgpu/react";

export async function aiSdk(): Promise<void> {
  const provider = createEmu(await Emu.load("models/emu-mini"));
  const model: LanguageModelV4 = provider();
  const drawing: ImageModelV4 = provider.imageModel("emu-mini");
  const general: ProviderV4 = provider;
  createProviderRegistry({ emu: provider });
  const emu = { repetitionPenalty: 1.1, images: false } satisfies EmuTextOptions;
  await generateText({ model, prompt: "hello", providerOptions: { emu } });
  streamText({ model: provider(), prompt: "hello" });
  await generateImage({ model: drawing, prompt: "a cat" });
  console.log(general);
}

export async function storage(): Promise<void> {
  const { signal } = new AbortController();
  await Emu.prefetch("models/emu-mini", { signal, components: ["vision"], persist: true, onProgress: ({ phase }) => console.log(phase) });
  await prefetch(new URL("https://a.b/"));
  await Emu.load("models/emu-mini", { persist: true });
  // @ts-expect-error: there is no device to choose.
  await Emu.prefetch("models/emu-mini", { device: "cpu" });
}

export function Component(): string | null {
  const { emu, ready, progress, error, chat, reload } = useEmu("models/emu-mini", { device: "cpu", components: ["lm"] });
  const latest: Progress | null = progress;
  if (error) reload();
  const load = async () => {
    for await (const event of chat([{ role: "user", content: "hello" }], { temperature: 0.7 })) if (event.type === "text") return event.text;
    return emu?.device.name;
  };
  void load;
  useEmu(null);
  // @ts-expect-error: aborted by its component.
  useEmu("models/emu-mini", { signal: new AbortController().signal });
  return ready ? null : String(latest?.phase);
}
