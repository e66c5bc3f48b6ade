/** Edge cases: pictures in every form, browsers that lack a feature, servers and policies that misbehave. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { serveWithFaults } from "../../server/faults.mjs";
import { across, PICTURES, Stage } from "../lib/stage.mjs";

const cpu = { devices: ["cpu"] };
const SVG = "<svg xmlns='http://www.w3.org/2000/svg' SIZE viewBox='0 0 64 32'><rect width='32' height='32' fill='red'/><circle cx='48' cy='16' r='12'/></svg>";

/** Runs in the page: the distance between the embeddings of two pictures, and calls that return their outcome. */
async function tools() {
  const embed = async (picture) => (await lab.emu.embed(picture)).flatMap((row) => [...row]);
  const distance = (a, b) => Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length);
  const canvas = (width, height, draw) => {
    const made = Object.assign(document.createElement("canvas"), { width, height });
    draw(made.getContext("2d"));
    return made;
  };
  const blobOf = (made, type) => new Promise((resolve) => made.toBlob(resolve, type, 1));
  const image = async (address, attributes = {}) => {
    const made = Object.assign(new Image(), attributes, { src: address });
    await made.decode();
    return made;
  };
  Object.assign(lab, { embed, distance, canvas, blobOf, image });
}

async function ready(stage) {
  await stage.load();
  await stage.page.evaluate(tools);
}

across("a picture of another origin is refused by name, and one with crossorigin is read", cpu, async (stage, t) => {
  await ready(stage);
  const closed = await serveWithFaults([{ prefix: "/", folder: PICTURES }], { open: false });
  t.after(() => closed.close());
  const other = await serveWithFaults([{ prefix: "/", folder: PICTURES }]);
  t.after(() => other.close());
  const came = await stage.page.evaluate(
    async (other, closed) => {
      const plain = await lab.image(`${other}fox.png`);
      const tainted = lab.canvas(8, 8, (context) => context.drawImage(plain, 0, 0));
      const allowed = await lab.image(`${other}fox.png`, { crossOrigin: "anonymous" });
      return {
        plain: await lab.outcome(lab.emu.caption(plain)),
        chat: await lab.outcome(lab.chat([plain, "what is this?"])),
        canvas: await lab.outcome(lab.emu.caption(tainted)),
        bitmap: await lab.outcome(createImageBitmap(plain).then((bitmap) => lab.emu.caption(bitmap))),
        address: await lab.outcome(lab.emu.caption(`${closed}fox.png`)),
        allowed: await lab.outcome(lab.emu.caption(allowed)),
        right: await lab.outcome(lab.emu.caption("/pictures/fox.png")),
      };
    },
    other.url,
    closed.url,
  );
  for (const what of ["plain", "chat", "canvas", "bitmap"]) {
    const { error } = came[what];
    assert.deepEqual([error?.name, error?.code], ["EmuError", "bad-image"], what);
    assert.match(error.message, /another origin.*crossorigin="anonymous"/, what);
  }
  assert.equal(came.address.error?.code, "bad-image");
  assert.equal(typeof came.right.value, "string");
  assert.deepEqual(came.allowed, came.right);
});

across("drawings and formats that only the browser knows are read in every form", cpu, async (stage) => {
  await ready(stage);
  const avif = (await readFile(new URL("../fixtures/fox.avif", import.meta.url))).toString("base64");
  const came = await stage.page.evaluate(
    async (svg, avif) => {
      const sized = svg.replace("SIZE", "width='64' height='32'");
      const own = lab.canvas(64, 32, (context) => {
        context.fillStyle = "#fff";
        context.fillRect(0, 0, 64, 32);
        context.fillStyle = "red";
        context.fillRect(0, 0, 32, 32);
        context.fillStyle = "black";
        context.arc(48, 16, 12, 0, 7);
        context.fill();
      });
      const right = await lab.embed(own);
      const empty = await lab.embed(lab.canvas(64, 32, () => {}));
      const far = lab.distance(right, empty);
      const forms = {
        blob: new Blob([sized], { type: "image/svg+xml" }),
        "blob without a type": new Blob([sized]),
        bytes: new TextEncoder().encode(sized),
        "with a head": new Blob([`<?xml version="1.0"?>\n<!-- a comment -->\n${sized}`]),
        "without a size": new Blob([svg.replace("SIZE", "")]),
        "of the page's width": new Blob([svg.replace("SIZE", "width='100%' height='100%'")]),
        address: `data:image/svg+xml,${encodeURIComponent(sized)}`,
        element: await lab.image(`data:image/svg+xml,${encodeURIComponent(sized)}`),
      };
      const off = {};
      for (const [name, form] of Object.entries(forms)) off[name] = lab.distance(await lab.embed(form), right) / far;
      const file = Uint8Array.from(atob(avif), (c) => c.charCodeAt(0));
      const fox = await lab.embed("/pictures/fox.png");
      const others = [lab.distance(await lab.embed(file), fox), lab.distance(await lab.embed(new Blob([file])), fox), lab.distance(empty, fox)];
      const unknown = await lab.outcome(lab.emu.caption(new Blob(["no picture"])));
      return { off, others, unknown };
    },
    SVG,
    avif,
  );
  for (const [name, share] of Object.entries(came.off)) assert.ok(share < 0.1, `${name} is off by ${share}`);
  const [bytes, blob, far] = came.others;
  assert.ok(bytes < far / 4 && blob === bytes, `${came.others}`);
  assert.equal(came.unknown.error?.code, "bad-image");
});

across("every way in gives the same upright picture over white", cpu, async (stage) => {
  await ready(stage);
  const came = await stage.page.evaluate(async () => {
    // Half transparent, half opaque, and not symmetric under rotation.
    const own = lab.canvas(64, 64, (context) => {
      context.fillStyle = "blue";
      context.fillRect(0, 0, 64, 20);
      context.fillStyle = "rgb(255 0 0 / 50%)";
      context.fillRect(0, 20, 20, 44);
    });
    const white = lab.canvas(64, 64, (context) => {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, 64, 64);
      context.drawImage(own, 0, 0);
    });
    const black = lab.canvas(64, 64, (context) => {
      context.fillRect(0, 0, 64, 64);
      context.drawImage(own, 0, 0);
    });
    const right = await lab.embed(white);
    const far = lab.distance(await lab.embed(black), right);
    const png = await lab.blobOf(own, "image/png");
    const address = URL.createObjectURL(png);
    const forms = {
      canvas: own,
      "offscreen canvas": (() => {
        const made = new OffscreenCanvas(64, 64);
        made.getContext("2d").drawImage(own, 0, 0);
        return made;
      })(),
      pixels: own.getContext("2d").getImageData(0, 0, 64, 64),
      bitmap: await createImageBitmap(own),
      blob: png,
      bytes: new Uint8Array(await png.arrayBuffer()),
      webp: await lab.blobOf(own, "image/webp"),
      address,
      element: await lab.image(address),
    };
    const alpha = {};
    for (const [name, form] of Object.entries(forms)) alpha[name] = lab.distance(await lab.embed(form), right) / far;

    // A rotated photograph with EXIF orientation: its pixels are turned left, as from a camera turned right.
    const lying = lab.canvas(64, 64, (context) => {
      context.translate(0, 64);
      context.rotate(-Math.PI / 2);
      context.drawImage(white, 0, 0);
    });
    const jpeg = new Uint8Array(await (await lab.blobOf(lying, "image/jpeg")).arrayBuffer());
    const exif = [0xff, 0xe1, 0, 34, 69, 120, 105, 102, 0, 0, 77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
    const photo = new Uint8Array([...jpeg.subarray(0, 2), ...exif, ...jpeg.subarray(2)]);
    const file = new File([photo], "photo.jpg", { type: "image/jpeg" });
    const place = URL.createObjectURL(file);
    const element = await lab.image(place);
    const turned = {
      file,
      bytes: photo,
      address: place,
      element,
      bitmap: await createImageBitmap(file),
      canvas: lab.canvas(64, 64, (context) => context.drawImage(element, 0, 0)),
    };
    const aside = lab.distance(await lab.embed(lying), right);
    const orientation = {};
    for (const [name, form] of Object.entries(turned)) orientation[name] = lab.distance(await lab.embed(form), right) / aside;
    return { alpha, orientation };
  });
  for (const [kind, forms] of Object.entries(came))
    for (const [name, share] of Object.entries(forms)) assert.ok(share < 0.15, `${kind}: ${name} is off by ${share}`);
});

across("where AbortSignal.any is missing, a chat with a signal works and can be stopped", cpu, async (stage) => {
  await ready(stage);
  const came = await stage.page.evaluate(async () => {
    delete AbortSignal.any;
    const answer = await lab.outcome(lab.chat("hello", { signal: new AbortController().signal }));
    const stop = new AbortController();
    const stopped = lab.outcome(lab.chat("hello", { signal: stop.signal, onProgress: () => stop.abort() }));
    return [answer, await stopped];
  });
  assert.ok(came[0].value, JSON.stringify(came[0]));
  assert.equal(came[1].error?.name, "AbortError");
});

across("an address whose token changes is the same pack", cpu, async (stage) => {
  const at = (token) => `${stage.pack}?token=${token}`;
  const load = (url) => stage.page.evaluate((url, device) => lab.load(url, { device }), url, stage.device);
  assert.equal((await load(at(1))).error, undefined);
  const before = stage.store.log.length;
  assert.equal((await load(at(2))).error, undefined);
  assert.deepEqual(stage.store.log.slice(before).map(({ path }) => path), ["/emu.json"]);
  const kept = await stage.page.evaluate(async () => {
    await lab.emu.dispose();
    return lab.Emu.cache.list();
  });
  assert.deepEqual(kept.map(({ url, complete }) => [url, complete]), [[stage.pack, false]]);
  await stage.page.evaluate((url) => lab.Emu.cache.delete(url), at(3));
  assert.deepEqual(await stage.page.evaluate(() => lab.Emu.cache.list()), []);
});

const PAGES = [
  ["emu.json", "store", /emu\.json gives a web page/, "not-found"],
  ["tokenizer.json", "store", /^tokenizer\.json .* gives a web page/, "not-found"],
  ["vision-", "store", /^vision-\S+ .* gives a web page/, "not-found"],
  ["emu_web_bg.wasm", "site", /^The WASM module .*emu_web_bg\.wasm gives a web page/, "worker"],
  ["emu_web.js", "site", /^The worker .*emu_web\.js gives a web page/, "worker"],
  ["worker-cpu.js", "site", /^The worker .*worker-cpu\.js gives a web page/, "worker"],
];

across("where a server answers with its page for what is missing, that is said, for each kind of file", cpu, async (stage, t) => {
  for (const [match, where, message, code] of PAGES) {
    await t.test(match, async () => {
      const { faults } = stage[where];
      faults.push({ match, page: true });
      await stage.show();
      const { error } = await stage.tryLoad({ cache: "none" });
      assert.deepEqual([error?.name, error?.code], ["EmuError", code], error?.message);
      assert.match(error.message, message);
      faults.length = 0;
    });
  }
  await stage.show();
  await stage.load();
});

across("shards that a server compresses come out right, also where their download broke", cpu, async (stage, t) => {
  for (const gzip of ["said", "unsaid", "whole"]) {
    await t.test(gzip, async () => {
      const fault = { match: "safetensors", gzip };
      stage.store.faults.splice(0, Infinity, { ...fault, match: "vision-", cutAfter: 3 << 20, times: 1 }, fault);
      await stage.show();
      await stage.load({ cache: "none" });
      await stage.page.evaluate(() => lab.emu.dispose());
    });
  }
});

/** A page with a content security policy, and workers with one. */
async function guarded(stage, t, policies) {
  const other = new Stage(stage.name, stage.browser, stage.device);
  t.after(() => other.close());
  const headers = Object.entries(policies).map(([path, policy]) => `${path}\n  Content-Security-Policy: ${policy}\n`);
  await other.begin(stage.folder, headers.join(""));
  return other;
}

const WORKER = "/node_modules/emu-webgpu/dist/worker-*.js";

across("a policy that forbids WebAssembly is named with its directive; with wasm-unsafe-eval it works", cpu, async (stage, t) => {
  const forbidden = await guarded(stage, t, { [WORKER]: "script-src 'self'" });
  const { error } = await forbidden.tryLoad();
  assert.deepEqual([error?.name, error?.code], ["EmuError", "worker"], JSON.stringify(error));
  assert.match(error.message, /content security policy forbids WebAssembly\. Add 'wasm-unsafe-eval' to script-src/);
  const allowed = await guarded(stage, t, {
    "/lab.html": "script-src 'self' 'unsafe-inline'; worker-src 'self'",
    [WORKER]: "script-src 'self' 'wasm-unsafe-eval'",
  });
  await allowed.load();
});
