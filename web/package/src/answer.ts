/** What servers answer with in the place of a file. */

import { keyOf } from "./store.js";

/** Whether text, or the bytes of it, begins as a web page does: many servers answer with their index.html where a file is missing. */
export function isPage(given: Uint8Array | string): boolean {
  const text = typeof given === "string" ? given : new TextDecoder().decode(given.subarray(0, 256));
  return /^\s*<(?:!doctype\s+html|html|head|body|script|!--)/i.test(text);
}

/** What is wrong with the answer that an address gives, for the end of a sentence; `null` where it may be a file. */
export async function wrongWith(address: string, fetch: typeof globalThis.fetch): Promise<string | null> {
  try {
    const response = await fetch(address);
    if (!response.ok) return `the server answered ${response.status} for ${keyOf(address)}`;
    return isPage(new Uint8Array(await response.arrayBuffer())) ? pageAt(address) : null;
  } catch {
    return `${keyOf(address)} cannot be fetched`;
  }
}

/** Says that there is one, without the address's query, which may be secret. */
export function pageAt(address: string): string {
  return `${keyOf(address)} gives a web page`;
}
