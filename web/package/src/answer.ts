/** Detects server responses that are not the requested file. */

import { keyOf } from "./store.js";

/** Whether text, or its bytes, starts like a web page. Many servers answer with their index.html for a missing file. */
export function isPage(given: Uint8Array | string): boolean {
  const text = typeof given === "string" ? given : new TextDecoder().decode(given.subarray(0, 256));
  return /^\s*<(?:!doctype\s+html|html|head|body|script|!--)/i.test(text);
}

/** What is wrong with the response of a URL, as the end of a sentence; `null` if it may be a file. */
export async function wrongWith(address: string, fetch: typeof globalThis.fetch): Promise<string | null> {
  try {
    const response = await fetch(address);
    if (!response.ok) return `the server answered ${response.status} for ${keyOf(address)}`;
    return isPage(new Uint8Array(await response.arrayBuffer())) ? pageAt(address) : null;
  } catch {
    return `${keyOf(address)} cannot be fetched`;
  }
}

/** Reports a web page at a URL, without the query, which may be secret. */
export function pageAt(address: string): string {
  return `${keyOf(address)} gives a web page`;
}
