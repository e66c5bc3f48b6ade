/** What the adapters to other APIs share. */

import type { Session } from "./session.js";

/** The part of a loaded model that the adapters use: an `Emu` of a page or of Node, or a fake one in tests. */
export type Model = Pick<Session, "chat" | "embed" | "generateImage" | "support">;
