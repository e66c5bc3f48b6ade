import { requireVersion } from "emu-webgpu";

/** Version of this pack, and of the emu-webgpu that it was made beside. */
export const version = "0.1.0";
requireVersion("emu-webgpu-smol", version);

/** Each file by itself, in the form in which bundlers find and rename it; made when asked for, since a bundle that is no ES module has no address. */
export const pack = {
  url: "npm:emu-webgpu-smol",
  get files() {
    return {
      "emu.json": new URL("./pack/emu.json", import.meta.url).href,
      "tokenizer.json": new URL("./pack/tokenizer.json", import.meta.url).href,
      // The files of models/emu-smol/pack/emu.json, no more and no fewer: bundlers stop at one that is not there. A test compares.
      "vision-00001-of-00001.safetensors": new URL("./pack/vision-00001-of-00001.safetensors", import.meta.url).href,
      "decoder-00001-of-00001.safetensors": new URL("./pack/decoder-00001-of-00001.safetensors", import.meta.url).href,
      "lm-00001-of-00004.safetensors": new URL("./pack/lm-00001-of-00004.safetensors", import.meta.url).href,
      "lm-00002-of-00004.safetensors": new URL("./pack/lm-00002-of-00004.safetensors", import.meta.url).href,
      "lm-00003-of-00004.safetensors": new URL("./pack/lm-00003-of-00004.safetensors", import.meta.url).href,
      "lm-00004-of-00004.safetensors": new URL("./pack/lm-00004-of-00004.safetensors", import.meta.url).href,
    };
  },
};

/** The pack's folder, where the package is served as it was installed. Not in the form that bundlers look for: none knows folders. */
export const url = import.meta.url?.replace(/[^/]*$/, "pack/");
