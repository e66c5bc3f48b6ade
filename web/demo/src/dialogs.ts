/** Confirmation dialogs. */

import { $, say } from "./dom.js";

/** Asks before a costly or final action. Resolves to whether the visitor agreed. */
export function confirm(title: string, body: string, action: string): Promise<boolean> {
  const dialog = $<HTMLDialogElement>("confirm");
  say("confirm-title", title);
  say("confirm-body", body);
  say("confirm-yes", action);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
