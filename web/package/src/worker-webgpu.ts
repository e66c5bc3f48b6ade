// Built by `cargo xtask wasm`, which may run after the type check.
// @ts-ignore
import * as module from "../wasm/webgpu/emu_web.js";
import { serve } from "./serve.js";

serve(module, new URL("../wasm/webgpu/emu_web_bg.wasm", import.meta.url));
