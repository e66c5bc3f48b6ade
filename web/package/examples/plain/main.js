import { Emu } from "emu-webgpu";
import { pack } from "emu-webgpu-mini";

const element = (id) => document.getElementById(id);
const status = (text) => (element("status").textContent = text);

const onProgress = (progress) => {
  if (progress.phase === "download")
    status(`Downloading: ${Math.round((100 * progress.loadedAll) / progress.totalAll)}%`);
  else if (progress.phase === "denoise") status(`Drawing: step ${progress.step} of ${progress.steps}`);
  else if (progress.phase === "warning") console.warn(progress.message);
};

const emu = await Emu.load(pack, { onProgress });
status(`Ready, on ${emu.device.name}.`);

let stop = new AbortController();
element("stop").onclick = () => stop.abort();

/** Runs one job at a time, and shows its error. */
async function attempt(work) {
  stop.abort();
  stop = new AbortController();
  try {
    await work(stop.signal);
    status("Done.");
  } catch (error) {
    status(error.name === "AbortError" ? "Stopped." : error.message);
  }
}

element("file").onchange = ({ target }) =>
  attempt(async (signal) => {
    element("caption").textContent = await emu.caption(target.files[0], { signal, onProgress });
  });

element("draw").onclick = () =>
  attempt(async (signal) => {
    const show = (image) => {
      const canvas = element("canvas");
      Object.assign(canvas, { width: image.width, height: image.height });
      canvas.getContext("2d").putImageData(image, 0, 0);
    };
    const onStep = (progress) => {
      onProgress(progress);
      if (progress.preview) show(progress.preview);
    };
    const { image } = await emu.generateImage("please make a drawing of a panda on a gray background", {
      signal,
      onProgress: onStep,
      previewEvery: 2,
    });
    show(image);
  });
