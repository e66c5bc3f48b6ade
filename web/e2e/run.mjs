/**
 * Runs all tests: two files at a time, then those that measure time or memory one by one. Both runs take place, whatever the
 * first one finds.
 */

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
/** Files whose results depend on what else runs. */
const ALONE = ["smooth", "soak"].map((name) => `test/${name}.test.mjs`);

const all = readdirSync(new URL("test", import.meta.url)).filter((name) => name.endsWith(".test.mjs"));
const beside = all.map((name) => `test/${name}`).filter((path) => !ALONE.includes(path));

let failed = false;
for (const [concurrency, files] of [[2, beside], [1, ALONE]]) {
  const { status } = spawnSync(process.execPath, ["--test", `--test-concurrency=${concurrency}`, ...files], { cwd: here, stdio: "inherit" });
  failed ||= status !== 0;
}
process.exit(failed ? 1 : 0);
