/** Sizes of the built scripts, by what a page has to fetch for them. */

import { readFileSync } from "node:fs";

/** Names of the files that these files import, themselves included. Imports on demand (`import()`) do not count. */
export function closure(folder, names, found = new Set()) {
  for (const name of names) {
    if (found.has(name)) continue;
    found.add(name);
    const text = readFileSync(`${folder}/${name}`, "utf8");
    const imported = [...text.matchAll(/(?:from|import)\s*"\.\/([\w.-]+\.js)"/g)].map(([, file]) => file);
    closure(folder, imported, found);
  }
  return found;
}

export const bytesOf = (folder, names) => [...names].reduce((sum, name) => sum + readFileSync(`${folder}/${name}`).length, 0);
