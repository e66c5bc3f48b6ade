// esbuild copies no files: see copy.mjs.
import { Emu } from "emu-webgpu";

const file = document.querySelector("#file");
const output = document.querySelector("#output");

try {
  const emu = await Emu.load("emu-mini/", { worker: "emu-webgpu/dist/", wasm: "emu-webgpu/wasm/" });
  output.textContent = "Ready.";
  file.disabled = false;
  file.onchange = async () => {
    output.textContent = "";
    for await (const event of emu.chat([{ role: "user", content: [file.files[0], "what is on the left?"] }])) {
      if (event.type === "text") output.append(event.text);
    }
  };
} catch (error) {
  output.textContent = error.message;
}
