/** Downloads that fail, and recover. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { sentTwice } from "../../server/faults.mjs";
import { absent, launch } from "../lib/browsers.mjs";
import * as native from "../lib/native.mjs";
import { temporaryFolder } from "../lib/project.mjs";
import { across, LARGE, picture, Stage } from "../lib/stage.mjs";

/** The pack whose shards take several checkpoints. */
const large = { pack: LARGE };
const { shards } = JSON.parse(await readFile(join(LARGE, "emu.json"), "utf8"));
const sizes = Object.fromEntries(shards.map(({ file, bytes }) => [file.split("-")[0], bytes]));
const MIB = 1 << 20;
/** Checkpoint size: downloads resume in these steps. */
const STEP = 4 * MIB;

const [FOX] = await native.captions(LARGE, [picture("fox.png")]);
const caption = (page) => page.evaluate(async () => lab.emu.caption(await lab.bytes("/pictures/fox.png")));
const works = async (page) => assert.equal(await caption(page), FOX);

/** Responses for a component's shard. */
const answers = (stage, component) => stage.store.log.filter(({ path }) => path.startsWith(`/${component}-`));
const sent = (stage, component) => answers(stage, component).reduce((most, { to }) => Math.max(most, to), 0);

/** Starts a load without waiting for it. */
const begin = (stage, page = stage.page) =>
  page.evaluate(
    (url, device) => {
      lab.running = lab.load(url, { device, components: ["vision", "lm", "decoder"] });
    },
    stage.pack,
    stage.device,
  );

async function until(condition, what) {
  const deadline = Date.now() + 180_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `${what} never came`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

across("a tab that is killed in mid-download is resumed", large, async (stage, t) => {
  // Both lanes in parallel, then the decoder alone.
  const kills = [
    ["vision", STEP + MIB / 2],
    ["decoder", 2 * STEP + MIB],
  ];
  for (const [component, bytes] of kills) {
    stage.store.faults.length = 0;
    stage.store.faults.push({ match: component, rate: 4 * MIB }, { match: "lm", rate: 2.5 * MIB });
    await begin(stage);
    await until(() => sent(stage, component) >= bytes, `byte ${bytes} of ${component}`);
    await kill(stage);
  }
  stage.store.faults.length = 0;
  const { progress } = await stage.load({ components: ["vision", "lm", "decoder"] });
  await works(stage.page);

  // Vision and language model were downloading at the first kill, the decoder at the second.
  for (const { file } of shards) {
    const twice = sentTwice(stage.store.log, file);
    t.diagnostic(`${file}: ${(twice / MIB).toFixed(2)} MiB twice`);
    assert.ok(twice <= STEP, `${file}: ${twice} bytes were sent twice`);
  }
  const last = answers(stage, "decoder").at(-1);
  assert.equal(last.status, 206);
  assert.ok(last.from >= STEP && last.from % STEP === 0, `the decoder went on at byte ${last.from}`);
  assert.equal(last.to, sizes.decoder);
  const { fetchedAll } = totals(progress);
  assert.equal(fetchedAll, last.to - last.from);
});

/** Crashes the page's tab if the browser can be told to; closes it otherwise, without cleanup. */
async function kill(stage) {
  if (stage.name === "chromium") {
    const session = await stage.page.createCDPSession();
    await Promise.race([session.send("Page.crash").catch(() => {}), new Promise((done) => setTimeout(done, 2000))]);
  }
  await stage.page.close({ runBeforeUnload: false }).catch(() => {});
  stage.page = await stage.open();
}

/** Bytes in the last reports of each component. */
function totals(progress) {
  const last = new Map();
  for (const event of progress) if (event.phase === "download") last.set(event.component, event);
  const sum = (field) => [...last.values()].reduce((total, event) => total + event[field], 0);
  return { fetchedAll: sum("fetched"), loadedAll: sum("loaded") };
}

across("a flipped bit is noticed, and the shard fetched again", large, async (stage) => {
  stage.store.faults.push({ match: "vision-", flip: 3 * MIB, times: 1 });
  await stage.load();
  await works(stage.page);
  assert.deepEqual(answers(stage, "vision").map(({ from, to }) => [from, to]), [[0, sizes.vision], [0, sizes.vision]]);
});

/** Permanent server faults, and the error that a load then rejects with. */
const REFUSALS = [
  ["a shard whose bit stays flipped", { match: "vision-", flip: 3 * MIB }, "wrong-hash"],
  ["a truncated shard", { match: "vision-", truncate: 3 * MIB }, "short-file"],
  ["a shard that is not there", { match: "vision-", status: 404 }, "not-found"],
  ["a shard that is forbidden", { match: "vision-", status: 403 }, "fetch"],
];

across("what stays wrong is an error of its own that names the file, and loading works once it is healed", large, async (stage, t) => {
  for (const [what, fault, code] of REFUSALS) {
    await t.test(what, async () => {
      stage.store.faults.push(fault);
      const { error } = await stage.tryLoad();
      assert.deepEqual([error?.name, error?.code], ["EmuError", code]);
      assert.match(error.message, /^vision-00001-of-00001\.safetensors .+\. .+\.$/);
      stage.store.faults.length = 0;
    });
  }
  const none = await stage.page.evaluate((url, device) => lab.load(url, { device }), `${stage.pack}nowhere/`, stage.device);
  assert.equal(none.error?.code, "not-found");
  await stage.load();
  await works(stage.page);
});

across("a server that fails for a while is waited for", large, async (stage) => {
  stage.store.faults.push({ match: "vision-", status: 500, times: 2 }, { match: "lm-", status: 503, times: 1 });
  await stage.load();
  await works(stage.page);
  assert.deepEqual(answers(stage, "vision").map(({ status }) => status), [500, 500, 200]);
  assert.deepEqual(answers(stage, "lm").map(({ status }) => status), [503, 200]);
});

across("a connection that breaks is taken up where it broke", large, async (stage) => {
  stage.store.faults.push({ match: "vision-", cutAfter: STEP + MIB, times: 1 });
  await stage.load();
  await works(stage.page);
  const [first, second, ...more] = answers(stage, "vision");
  assert.deepEqual(more, []);
  assert.equal(second.status, 206);
  assert.ok(second.from <= first.to && first.to - second.from <= STEP, `from ${second.from} after ${first.to}`);
});

across("a server without Range works, from the start", large, async (stage) => {
  stage.store.faults.push({ match: "vision-", cutAfter: STEP + MIB, noRange: true, times: 1 }, { match: "safetensors", noRange: true });
  await stage.load();
  await works(stage.page);
  assert.deepEqual(answers(stage, "vision").map(({ status, from }) => [status, from]), [[200, 0], [200, 0]]);
});

across("a warm cache works offline, and damage in it is noticed", large, async (stage, t) => {
  const all = ["vision", "lm", "decoder"];
  await stage.load({ components: all });
  await works(stage.page);
  const { log } = stage.store;
  const before = log.length;

  await t.test("a second visit fetches the manifest alone", async () => {
    await stage.show();
    await stage.load({ components: all });
    await works(stage.page);
    assert.deepEqual(log.slice(before).map(({ path }) => path), ["/emu.json"]);
  });

  await t.test("a flipped bit in the cache costs one shard", async () => {
    await stage.show();
    const flipped = await stage.page.evaluate(flipStored, "lm-", 1_000_000);
    assert.equal(flipped, 1);
    const before = log.length;
    await stage.load({ components: all });
    await works(stage.page);
    assert.deepEqual(log.slice(before).map(({ path }) => path.split("-")[0]), ["/emu.json", "/lm"]);
  });

  await t.test("offline everything is there", async () => {
    await stage.store.close();
    await stage.show();
    await stage.load({ components: all });
    await works(stage.page);
    const picture = await stage.page.evaluate(() => lab.draw("a fox on a blue background", { steps: 1 }));
    assert.ok(picture.width > 0);
  });

  await t.test("what was deleted is gone", async () => {
    await stage.page.evaluate(() => lab.emu.dispose());
    const kept = await stage.page.evaluate(() => lab.Emu.cache.list());
    assert.deepEqual(kept.map(({ name, complete }) => [name, complete]), [["emu-mini", true]]);
    await stage.page.evaluate((url) => lab.Emu.cache.delete(url), stage.pack);
    assert.deepEqual(await stage.page.evaluate(() => lab.Emu.cache.list()), []);
    assert.equal((await stage.tryLoad()).error?.code, "fetch");
  });
});

/** Runs in the page: flips a bit at an offset of stored files with this name prefix. */
async function flipStored(prefix, offset) {
  let flipped = 0;
  const visit = async (folder) => {
    for await (const [name, handle] of folder.entries()) {
      if (handle.kind === "directory") await visit(handle);
      else if (name.startsWith(prefix)) {
        const byte = new Uint8Array(await (await handle.getFile()).slice(offset, offset + 1).arrayBuffer());
        byte[0] ^= 4;
        const stream = await handle.createWritable({ keepExistingData: true });
        await stream.write({ type: "write", position: offset, data: byte });
        await stream.close();
        flipped += 1;
      }
    }
  };
  await visit(await navigator.storage.getDirectory());
  return flipped;
}

across("two tabs that load the same pack share one download", large, async (stage) => {
  stage.store.faults.push({ match: "safetensors", rate: 8 * MIB });
  const other = await stage.open();
  const pages = [stage.page, other];
  await Promise.all(pages.map((page) => stage.load({}, page)));
  await Promise.all(pages.map(works));
  for (const { file } of shards) assert.equal(sentTwice(stage.store.log, file), 0, file);
  for (const component of ["vision", "lm"]) assert.equal(answers(stage, component).length, 1);
});

/** Two ways of running out of storage: an origin's quota that shrinks (Chromium), a browser that has little (Firefox). */
for (const name of ["chromium", "firefox"]) {
  test(`an exceeded quota is told, and everything works without the cache (${name}, cpu)`, { skip: absent(name) }, async (t) => {
    const browser = await launch(name, { profile: await temporaryFolder("profile"), preferences: { "dom.quotaManager.temporaryStorage.fixedLimit": 4096 } });
    t.after(() => browser.close());
    const stage = new Stage(name, browser, "cpu");
    t.after(() => stage.close());
    await stage.begin(LARGE);
    if (name === "chromium") {
      const session = await stage.page.createCDPSession();
      await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(stage.site.url).origin, quotaSize: 5 * MIB });
    }
    const { progress, reasons } = await stage.load({ components: ["vision", "lm", "decoder"] });
    const warning = progress.find(({ phase }) => phase === "warning");
    assert.equal(warning?.code, "cache-full", JSON.stringify(progress.filter(({ phase }) => phase === "warning")));
    assert.ok(reasons.includes(warning.message));
    // Checked before the download too, if the browser reports the free space: Chromium always reports the same quota.
    const { quota } = await stage.page.evaluate(() => navigator.storage.estimate());
    const total = sizes.vision + sizes.lm + sizes.decoder;
    assert.equal(reasons.some((reason) => /grants this page .+ of storage/.test(reason)), quota < total, `${quota} bytes: ${reasons}`);
    await works(stage.page);
    await stage.show();
    await stage.load();
    await works(stage.page);
  });
}
