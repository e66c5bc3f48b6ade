/** Base64, and pictures at `data:` addresses. */

import { EmuError } from "./index.js";

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  // A call takes a limited number of arguments.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** @throws {EmuError} `bad-image` */
export function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  } catch (cause) {
    throw new EmuError("bad-image", "A picture is no base64. Give its bytes in base64, without line numbers or quotes.", { cause });
  }
}

/**
 * The bytes of a picture at a `data:` address; other addresses as they are. Decoded here, since a policy for `connect-src` may
 * forbid workers to fetch `data:`.
 *
 * @throws {EmuError} `bad-image`
 */
export function pictureAt(address: string): Uint8Array | string {
  const [start, base64] = /^data:[^,]*?(;base64)?,/i.exec(address) ?? [];
  if (start === undefined) {
    if (!/^data:/i.test(address)) return address;
    throw new EmuError("bad-image", "A picture's data: address has no data. Give `data:TYPE;base64,BYTES`.");
  }
  let body = address.slice(start.length);
  try {
    if (body.includes("%")) body = decodeURIComponent(body);
  } catch (cause) {
    throw new EmuError("bad-image", "A picture's data: address is not encoded as an address. Encode its bytes in base64.", { cause });
  }
  return base64 === undefined ? new TextEncoder().encode(body) : fromBase64(body);
}
