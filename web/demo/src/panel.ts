/** The panel: device, memory plan, progress, and cached models. */

import { Emu, type CachedModel } from "emu-webgpu";

import { announce } from "./announce.js";
import { confirm } from "./dialogs.js";
import { $, button, h, row, say, show } from "./dom.js";
import { told } from "./errors.js";
import { bytes, seconds } from "./format.js";
import type { Session } from "./session.js";
import { COMPONENT_NAMES, type ComponentProgress } from "./tracker.js";
import { deviceName, modelName } from "./welcome.js";

const TASKS = { caption: "Describe a picture", chat: "Chat", draw: "Draw" } as const;

const PHASES = { compile: "Compile", prefill: "Prefill", decode: "Decode", denoise: "Denoise", "decode-image": "Decode the picture" };

function device(session: Session): void {
  const { support } = session;
  const adapter = support?.adapter;
  $("device-facts").replaceChildren(
    row("In use", deviceName(session)),
    row("Adapter", adapter ? `${adapter.name || "unnamed"}${adapter.software ? " (software)" : ""}` : "no WebGPU adapter"),
    ...(adapter
      ? [
          row("Largest buffer", bytes(adapter.limits.maxBufferSize)),
          row("Largest binding", bytes(adapter.limits.maxStorageBufferBindingSize)),
          row("Workgroup", `${adapter.limits.maxComputeInvocationsPerWorkgroup} invocations`),
          row("Features", adapter.features.length ? adapter.features.join(", ") : "none"),
        ]
      : []),
    row("Processor", `${navigator.hardwareConcurrency} threads`),
  );
  say("device-reasons", support?.reasons.join(" ") ?? "");
}

function memory(session: Session): void {
  const { support } = session;
  show("memory", support !== null);
  if (!support) return;
  const cell = (text: string) => h("td", {}, text);
  const { plan, tasks } = support;
  $("plan-rows").replaceChildren(
    ...plan.map((entry) => {
      const { component, download, resident } = entry;
      const here = session.here(entry);
      return h("tr", {}, h("th", { scope: "row" }, COMPONENT_NAMES[component]), cell(bytes(download)), cell(here >= download ? "all" : bytes(here)), cell(bytes(resident)));
    }),
  );
  $("task-rows").replaceChildren(
    ...tasks.map(({ task, resident, fits }) => row(TASKS[task], `${bytes(resident)} at once · `, h("span", { class: fits ? "good" : "bad" }, fits ? "fits" : "does not fit"))),
  );
}

/** The progress bars of one component, with its name. */
function bars(name: string, { download, upload }: ComponentProgress, time: (phase: string) => string): HTMLElement[] {
  const bar = (label: string, phase: string, amount?: { loaded: number; total: number }) =>
    amount && h("div", { class: "bar-row" }, h("span", {}, label), h("progress", { max: Math.max(1, amount.total), value: amount.loaded, "aria-label": `${name}: ${label}` }), h("span", { class: "amount" }, `${bytes(amount.loaded)}${time(phase)}`));
  const fetched = download && download.loaded > 0 && download.fetched === 0;
  return [h("h3", {}, name), bar(fetched ? "From cache" : "Download", "download", download), bar("To memory", "upload", upload)].filter((part) => part !== undefined);
}

function progress({ tracker }: Session): void {
  const { components, times } = tracker;
  const time = (key: string) => ` · ${seconds((times.get(key) ?? 0) / 1000)}`;
  show("progress-none", components.size === 0);
  $("progress-bars").replaceChildren(
    ...[...components].flatMap(([component, amounts]) => bars(COMPONENT_NAMES[component], amounts, (phase) => time(`${phase} ${component}`))),
  );
  $("phases").replaceChildren(...Object.entries(PHASES).flatMap(([phase, name]) => (times.has(phase) ? [row(name, time(phase).slice(3))] : [])));
}

/** Lists the models in the browser's storage. */
export async function showCache(session: Session): Promise<void> {
  let found: CachedModel[] = [];
  let note = "No model is kept on this device.";
  try {
    found = await Emu.cache.list();
  } catch (error) {
    note = told(error);
  }
  say("cache-none", note);
  show("cache-none", !found.length);
  $("cache-list").replaceChildren(
    ...found.map(({ url, name, bytes: size, complete }) => {
      const remove = button("trash", "Delete", async () => {
        if (!(await confirm(`Delete ${name} from this device?`, `This frees ${bytes(size)}. The next use downloads it again.`, "Delete"))) return;
        try {
          await Emu.cache.delete(url);
          announce(`${name} deleted.`);
          await session.check();
          await showCache(session);
        } catch (error) {
          say("cache-none", told(error));
          show("cache-none", true);
        }
      });
      remove.setAttribute("aria-label", `Delete ${name} from this device`);
      const facts = h("span", { class: "hint" }, `${bytes(size)}${complete ? "" : ", not all of it"}`);
      return h("li", {}, h("div", {}, h("strong", {}, name), facts, h("span", { class: "hint url" }, url)), remove);
    }),
  );
}

/** Keeps the panel up to date, at most once per frame and only while it is visible. */
export function bindPanel(session: Session): { refresh: () => void } {
  let asked = false;
  const refresh = () => {
    if (asked || $("panel").hidden) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      const model = session.support?.model;
      say("panel-model", modelName(session));
      say("panel-license", model ? `Licence: ${model.license}. ${model.attribution}` : "");
      device(session);
      memory(session);
      progress(session);
    });
  };
  session.listeners.add(refresh);
  session.tracker.listeners.add(refresh);
  return { refresh };
}
