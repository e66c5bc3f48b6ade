// Vite needs no configuration: it finds the worker, the WASM module and the pack's files by itself.
import { Emu, EmuError, type Message } from "emu-webgpu";
import { pack } from "emu-webgpu-mini";

const file = document.querySelector<HTMLInputElement>("#file")!;
const output = document.querySelector<HTMLElement>("#output")!;

try {
  const emu = await Emu.load(pack, {
    onProgress: (progress) => {
      if (progress.phase === "download")
        output.textContent = `Loading: ${Math.round((100 * progress.loadedAll) / progress.totalAll)}%`;
    },
  });
  output.textContent = "Ready.";
  file.disabled = false;
  file.onchange = async () => {
    const messages: Message[] = [{ role: "user", content: [file.files![0]!, "what is on the left?"] }];
    output.textContent = "";
    for await (const event of emu.chat(messages)) {
      if (event.type === "text") output.append(event.text);
      else if (event.type === "usage") output.append(` (${event.tokens} tokens in ${event.seconds.toFixed(1)} s)`);
    }
  };
} catch (error) {
  output.textContent = error instanceof EmuError ? `${error.message} [${error.code}]` : String(error);
}
