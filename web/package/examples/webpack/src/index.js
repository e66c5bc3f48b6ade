// webpack needs no configuration: it finds the workers, the WASM modules and the files of the pack by itself.
import { Emu } from "emu-webgpu";
import { pack } from "emu-webgpu-mini";

const file = document.querySelector("#file");
const output = document.querySelector("#output");

try {
  const emu = await Emu.load(pack);
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
