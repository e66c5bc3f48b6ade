/** The first page: the model, the cost of loading it, and the progress of the load. */

import { $, say, show } from "./dom.js";
import { told } from "./errors.js";
import { bytes } from "./format.js";
import type { Session } from "./session.js";

/** Display name of the device. */
export function deviceName({ support, device, used }: Session): string {
  const kind = used?.kind ?? (device === "auto" ? support?.device : device);
  if (kind === "cpu") return "CPU";
  if (kind === "webgpu") return used?.name || support?.adapter?.name || "WebGPU";
  return "no device";
}

const STATUS: Record<Session["state"], string> = {
  checking: "checking",
  unreachable: "not reachable",
  unsupported: "does not run here",
  idle: "not loaded",
  loading: "loading",
  ready: "ready",
};

/** Elements of the first page that are shown in one state only. */
const SHOWN: Record<string, Session["state"]> = {
  load: "idle",
  "keep-field": "idle",
  "examples-hint": "idle",
  recheck: "unreachable",
  "welcome-progress": "loading",
  "welcome-ready": "ready",
};

/** The model's name, once its manifest is known. */
export const modelName = ({ support }: Session): string => support?.model.name ?? "The model";

function describe(session: Session): string {
  const { support } = session;
  if (!support) return "";
  const { imageSize, draws, checks } = support.model;
  const sees = `It sees pictures at ${imageSize} × ${imageSize} pixels`;
  const drawing = draws ? ` and draws ${draws} × ${draws}` : " and does not draw";
  return `${sees}${drawing}.${draws && !checks ? " It has no safety checker." : ""}`;
}

/** Updates the first page and the button in the header. */
export function showState(session: Session): void {
  const { state, support, problem } = session;
  const name = modelName(session);
  document.title = `${name} · Emu in the page`;
  say("chip-name", name);
  say("chip-state", state === "ready" ? deviceName(session) : STATUS[state]);
  $("model-chip").dataset["state"] = state;

  const missing = session.missing("chat");
  say("model-name", name);
  say("model-about", describe(session));
  show("model-facts", support !== null);
  if (support) {
    const extra = session.missing("draw") - missing;
    say("fact-download", missing > 0 ? bytes(missing) : "already here");
    say("fact-drawing", !support.model.draws ? "does not draw" : extra > 0 ? `${bytes(extra)} more` : "nothing more");
    say("fact-device", deviceName(session));
    say("fact-license", support.model.license);
  }
  const reasons = state === "unreachable" ? told(problem) : (support?.reasons.join(" ") ?? "");
  say("reasons", reasons);
  show("reasons", reasons !== "");
  $("reasons").classList.toggle("bad", state === "unreachable" || state === "unsupported");

  say("examples-hint", missing > 0 ? `The first thing you send downloads the model (${bytes(missing)}).` : "The model is loaded with the first thing you send.");
  say("load-label", missing > 0 ? `Download ${name} (${bytes(missing)})` : `Load ${name}`);
  for (const [id, when] of Object.entries(SHOWN)) show(id, when === state);
  if (missing === 0) show("keep-field", false);
}
