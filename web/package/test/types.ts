/** What the published types must accept and reject. Checked by the compiler, never run. */

import { Emu, EmuError, framesOfVideo, requireVersion, VERSION } from "emu-webgpu";
import type { ChatEvent, ChatOptions, Costs, DeviceInfo, MemoryInfo, Message, PackLocation, Picture, Progress, Support, TokenLogprobs } from "emu-webgpu";
import { Emu as NodeEmu } from "emu-webgpu/node";
import { type Fault, provoke } from "emu-webgpu/testing";

declare const file: File;
declare const image: HTMLImageElement;
declare const canvas: OffscreenCanvas;
const { signal } = new AbortController();

export async function page(): Promise<void> {
  const support: Support = await Emu.checkSupport("models/emu-mini", { signal });
  const converses: boolean = support.model.converses;
  const emu: Emu = await Emu.load(new URL("https://a.b/"), {
    signal,
    device: "auto",
    components: ["vision", "lm"],
    cache: "none",
    expect: { beams: 5, maxNewTokens: 512, width: 512, height: 512 },
    worker: "emu-webgpu/dist/",
    wasm: { cpu: new URL("https://a.b/emu_web_bg.wasm"), webgpu: "webgpu.wasm" },
    onProgress: (progress: Progress) => {
      switch (progress.phase) {
        case "download":
          return console.log(progress.component, progress.loaded / progress.total, progress.fetched);
        case "upload":
          return console.log(progress.loaded);
        case "compile":
          return console.log(progress.done / progress.total);
        case "prefill":
        case "decode":
          return console.log(progress.tokens);
        case "denoise":
          return console.log(progress.step, progress.preview?.width);
        case "decode-image":
          return;
        case "warning":
          return console.log(progress.code, progress.message);
        default: {
          const rest: never = progress;
          return rest;
        }
      }
    },
  });

  const messages: Message[] = [
    { role: "system", content: "Be brief." },
    { role: "user", content: [image, "What is this?", { type: "video", frames: await framesOfVideo(file) }] },
  ];
  for await (const event of emu.chat(messages, { signal, temperature: 0.7, draw: { steps: 20 }, retry: true })) {
    const piece: ChatEvent = event;
    if (piece.type === "text") piece.text.trim();
    else if (piece.type === "image") piece.image.data;
    else piece.tokens.toFixed();
  }
  const options: ChatOptions = { minP: 0.05, presencePenalty: 0.5, frequencyPenalty: -0.5, logitBias: { 5: -100 }, stop: ["\n"] };
  for await (const event of emu.chat(messages, { ...options, n: 2, logprobs: true, topLogprobs: 3 })) {
    const index: number = event.index;
    if (event.type === "text") {
      const tokens: TokenLogprobs[] = event.logprobs ?? [];
      for (const { token, logprob, bytes, top } of tokens) console.log(index, token, logprob, bytes, top[0]?.id);
    } else if (event.type === "usage") {
      const finish: "end" | "stop" | "length" = event.finish;
      console.log(finish, event.cachedTokens, event.firstTokenSeconds, event.prefillTokensPerSecond, event.decodeTokensPerSecond?.toFixed());
    }
  }
  // @ts-expect-error: a caption is one text.
  await emu.caption(file, { n: 2 });
  // @ts-expect-error: ids of tokens are numbers.
  await emu.caption(file, { logitBias: { word: 1 } });
  const caption: string = await emu.caption(file, { beams: 5 });
  const picture: Picture = await emu.generateImage([canvas, "in the style of", image], {
    seed: 7,
    scheduler: "dpm++",
    previewEvery: 2,
  });
  const flagged: boolean | null = picture.flagged;
  const rows: Float32Array[] = await emu.embed(new Uint8Array());
  const memory: MemoryInfo = await emu.memory();
  const costs: Costs = await emu.costs();
  const device: DeviceInfo = emu.device;
  await emu.reset();
  await emu.dispose();
  await Emu.cache.delete((await Emu.cache.list())[0]!.url);
  const files: PackLocation = { url: "npm:x", files: { "emu.json": "https://a.b/emu-1234.json" } };
  await Emu.checkSupport(files);
  const fault: Fault = "panic";
  provoke(emu, fault);
  requireVersion("emu-webgpu-x", "0.1.0");
  const error = new EmuError("wrong-hash", "x");
  if (error.code === "wrong-hash") console.log(support, converses, caption, flagged, rows, memory, costs, device, VERSION);

  // @ts-expect-error: loaded, never constructed.
  new Emu();
  // @ts-expect-error: no such device.
  await Emu.load("x", { device: "npu" });
  // @ts-expect-error: a module is for a device.
  await Emu.load("x", { wasm: { gpu: "x.wasm" } });
  // @ts-expect-error: a message has a role.
  emu.chat([{ content: "x" }]);
  // @ts-expect-error: no such scheduler.
  await emu.generateImage("x", { scheduler: "euler" });
  // @ts-expect-error: a picture is no number.
  await emu.caption(7);
  // @ts-expect-error: faults are not part of the calls.
  emu.provoke("panic");
}

export async function node(): Promise<void> {
  const emu = await NodeEmu.load("models/emu-mini", { cache: "/tmp/cache" });
  await emu.caption(new Uint8Array());
  // @ts-expect-error: there is no WebGPU in Node.
  await NodeEmu.load("x", { device: "webgpu" });
}
