import { requireVersion } from "emu-webgpu";

/** Version of this pack, and of the emu-webgpu that it was made for. */
export const version = "0.1.0";
requireVersion("emu-webgpu-smol", version);

/** One URL per file, in the form that bundlers find and rename. A getter, since only an ES module has `import.meta.url`. */
export const pack = {
  url: "npm:emu-webgpu-smol",
  get files() {
    return {
      "emu.json": new URL("./pack/emu.json", import.meta.url).href,
      "tokenizer.json": new URL("./pack/tokenizer.json", import.meta.url).href,
      // Exactly the files of models/emu-smol/pack/emu.json: bundlers fail on a missing one. A test compares the lists.
      "vision-00001-of-00001.safetensors": new URL("./pack/vision-00001-of-00001.safetensors", import.meta.url).href,
      "decoder-00001-of-00001.safetensors": new URL("./pack/decoder-00001-of-00001.safetensors", import.meta.url).href,
      "lm-00001-of-00004.safetensors": new URL("./pack/lm-00001-of-00004.safetensors", import.meta.url).href,
      "lm-00002-of-00004.safetensors": new URL("./pack/lm-00002-of-00004.safetensors", import.meta.url).href,
      "lm-00003-of-00004.safetensors": new URL("./pack/lm-00003-of-00004.safetensors", import.meta.url).href,
      "lm-00004-of-00004.safetensors": new URL("./pack/lm-00004-of-00004.safetensors", import.meta.url).href,
    };
  },
};

/** URL of the pack's folder, if the package is served as installed. Not in the form that bundlers look for, which is for files.
 * */
export const url = import.meta.url?.replace(/[^/]*$/, "pack/");
