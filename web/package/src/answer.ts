/** What servers answer with in the place of a file. */

import { keyOf } from "./store.js";

/** Whether bytes begin as a web page does: many servers answer with their index.html where a file is missing. */
export function isPage(bytes: Uint8Array): boolean {
  const head = new TextDecoder().decode(bytes.subarray(0, 256));
  return /^\s*<(?:!doctype\s+html|html|head|body|script|!--)/i.test(head);
}

/** What is wrong with the answer that an address gives, for the end of a sentence; `null` where it may be a file. */
export async function wrongWith(address: string, fetch: typeof globalThis.fetch): Promise<string | null> {
  try {
    const response = await fetch(address);
    const reader = response.body?.getReader();
    const first = await reader?.read();
    void reader?.cancel().catch(() => {});
    if (response.status === 404 || response.status === 410) return `there is nothing at ${keyOf(address)}`;
    if (!response.ok) return `the server answered ${response.status} for ${keyOf(address)}`;
    return first?.value && isPage(first.value) ? pageAt(address) : null;
  } catch {
    return `${keyOf(address)} cannot be fetched`;
  }
}

/** Says that there is one, without the address's query, which may be secret. */
export function pageAt(address: string): string {
  return `the address ${keyOf(address)} gives a web page`;
}
