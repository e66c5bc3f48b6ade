/** Wires the page: URL parameters, model, conversation, panel. */

import type { DeviceChoice } from "emu-webgpu";

import { announce } from "./announce.js";
import { bindBenchmark } from "./bench.js";
import { Composer, type Draft } from "./composer.js";
import { confirm } from "./dialogs.js";
import { $, say, show } from "./dom.js";
import { explain, isAbort, told } from "./errors.js";
import { files, showExamples, type Example } from "./examples.js";
import { bytes } from "./format.js";
import { follow, latest, watchScrolling } from "./scroll.js";
import { forget, takeIn } from "./media.js";
import { bundled, locate, named, pageWith } from "./models.js";
import { bindPanel, showCache } from "./panel.js";
import { attachmentsOf, contextFor, latestPictures, pieces, type Context } from "./prompt.js";
import { run } from "./run.js";
import { Session } from "./session.js";
import { randomSeed, recall, remember, SettingsForm } from "./settings.js";
import { bindSide } from "./side.js";
import { TurnView, type Mode, type Turn } from "./turn.js";
import { modelName, showState } from "./welcome.js";

/** Larger downloads, in bytes, need a confirmation, even after a click that asked for them. */
const MUCH = 200e6;

// 1. URL parameters and stored settings. The URL takes precedence.
const address = new URLSearchParams(location.search);
const earlier = recall();
const isDevice = (value: unknown): value is DeviceChoice => value === "auto" || value === "webgpu" || value === "cpu";
// `cargo xtask demo` marks the page that it serves before the WebGPU module is built.
const pending = document.documentElement.dataset["webgpu"] === "pending";
const chosen = [address.get("device"), earlier.device].find(isDevice) ?? "auto";
const session = new Session(locate, pending ? "cpu" : chosen, earlier.keep ?? true);

// 2. The conversation.
const log = $("log");
let views: TurnView[] = [];
let running: AbortController | null = null;

const context = (): Context => settings.value.context ?? contextFor(session.support);
const about = () => (context() === "pictures" ? latestPictures(views.map(({ turn }) => turn)) : []);

/** Whether drawing works through a chat message: a model that converses answers draw requests with a picture and a text on it, so
 * that the next message can refer to it. */
const drawsInChat = () => Boolean(session.support?.model.converses) && settings.value.drawInChat;

/** Starts a job and returns its abort signal; null while another runs. */
function begin(): AbortSignal | null {
  if (running) return null;
  running = new AbortController();
  composer.setBusy(true);
  return running.signal;
}

function end(): void {
  running = null;
  composer.setBusy(false);
  composer.setAbout(about());
  session.changed();
}

const stop = () => running?.abort(new DOMException("Stopped by the visitor.", "AbortError"));

/** Whether the visitor wants a download of this size now. */
async function agreed(mode: Mode): Promise<boolean> {
  if (!session.support) await session.check();
  const size = session.missing(mode);
  return size < MUCH || session.state === "loading" || confirm(`Download ${bytes(size)}?`, `${modelName(session)} must be downloaded to this device before it can answer. This takes a while and may cost money on a metered connection.`, "Download");
}

async function perform(view: TurnView): Promise<void> {
  const signal = begin();
  if (!signal) return;
  // The "Try again" button is removed with the old answer.
  if (view.element.contains(document.activeElement)) $("stop").focus();
  view.begin();
  follow(true);
  const hear = (progress: Parameters<TurnView["progress"]>[0]) => {
    view.progress(progress);
    follow();
  };
  session.tracker.listeners.add(hear);
  try {
    if (!(await agreed(view.turn.mode))) throw new DOMException("Declined.", "AbortError");
    const past = views.slice(0, views.indexOf(view)).map(({ turn }) => turn);
    await run(view, { session, settings: settings.value, past, context: context(), signal });
  } catch (error) {
    if (isAbort(error)) view.stopped();
    else view.failed(explain(error));
  } finally {
    session.tracker.listeners.delete(hear);
    end();
    follow();
  }
}

function ask(turn: Turn): void {
  const view = new TurnView(turn, modelName(session), session.tracker, {
    use: (picture) => composer.attach(picture),
    another: () => {
      if (!running) ask({ ...turn, mode: drawsInChat() ? turn.mode : "draw", answered: [], seed: randomSeed() });
    },
    keepSeed: (seed) => {
      settings.setSeed(seed);
      announce(`Seed ${seed} is used from now on. Clear the seed field in the settings to use new seeds.`);
    },
    retry: () => void perform(view),
  });
  show("welcome", false);
  show("new", true);
  views.push(view);
  log.append(view.element);
  void perform(view);
}

function send({ mode, text, attachments, about }: Draft): string | null {
  try {
    ask({ mode, asked: pieces(text, attachments), about, answered: [], seed: settings.value.seed ?? randomSeed() });
    return null;
  } catch (error) {
    return told(error);
  }
}

async function pick(example: Example): Promise<void> {
  if (running) return announce("Something is running. Stop it first.");
  const mode = example.kind === "blend" || (example.kind === "draw" && !drawsInChat()) ? "draw" : "chat";
  const attachments = await Promise.all((await files(example)).map((file) => takeIn(file, file.name)));
  composer.mode = mode;
  send({ mode, text: example.prompt, attachments, about: [] });
}

async function startOver(): Promise<void> {
  stop();
  for (const { turn } of views) for (const one of [...attachmentsOf(turn.asked), ...attachmentsOf(turn.answered)]) forget(one);
  views = [];
  log.replaceChildren();
  composer.setAbout([]);
  show("welcome", true);
  show("new", false);
  announce("New conversation.");
  $("prompt").focus();
  await session.reset().catch(() => undefined);
}

// 3. Settings, and what is stored.
const keepBoxes = [$<HTMLInputElement>("keep"), $<HTMLInputElement>("keep-panel")];
const rememberBox = $<HTMLInputElement>("remember");
const deviceBox = $<HTMLSelectElement>("device");
rememberBox.checked = earlier.settings !== undefined;
deviceBox.value = session.device;
deviceBox.disabled = pending;
show("pending", pending);

function save(): void {
  if (rememberBox.checked) rememberBox.checked = remember({ settings: settings.value, device: pending ? chosen : session.device, keep: session.keep, mode: composer.mode });
}

const settings = new SettingsForm(earlier.settings, () => {
  save();
  composer.setAbout(about());
});
rememberBox.addEventListener("change", () => (rememberBox.checked ? save() : remember(null)));
for (const box of keepBoxes) {
  box.checked = session.keep;
  box.addEventListener("change", () => {
    session.keep = box.checked;
    for (const other of keepBoxes) other.checked = box.checked;
    save();
  });
}
deviceBox.addEventListener("change", async () => {
  stop();
  session.device = deviceBox.value as DeviceChoice;
  save();
  await session.release().catch(() => undefined);
});

// 4. The first page.
const composer = new Composer(send, stop, save);
if (earlier.mode === "draw") composer.mode = "draw";
$("load").addEventListener("click", async () => {
  if (!(await agreed("chat"))) return;
  const signal = begin();
  if (!signal) return;
  show("welcome-problem", false);
  announce("Loading the model.");
  try {
    await session.ready(signal);
    announce("The model is ready.");
  } catch (error) {
    if (isAbort(error)) return announce("Stopped.");
    say("welcome-problem", told(error));
    show("welcome-problem", true);
  } finally {
    end();
  }
});
$("recheck").addEventListener("click", () => void session.check());
session.tracker.listeners.add((progress) => {
  if ($("welcome").hidden || progress.phase === "warning") return;
  const { text, detail, fraction } = session.tracker.describe(progress);
  say("welcome-status", text);
  say("welcome-detail", detail);
  $<HTMLProgressElement>("welcome-bar").value = fraction ?? 0;
});
const shown = () => {
  showState(session);
  const draws = session.support?.model.draws;
  composer.allowDrawing(draws !== null);
  document.body.classList.toggle("draws", Boolean(draws));
};
session.listeners.add(shown);
shown();

// 5. Panel, keys, scrolling.
const panel = bindPanel(session);
bindSide((open) => {
  panel.refresh();
  if (open) void showCache(session);
});
session.listeners.add(() => {
  if (!$("panel").hidden && session.state !== "loading" && session.state !== "checking") void showCache(session);
});
bindBenchmark(session, begin, end);
$("new").addEventListener("click", () => void startOver());
const modelForm = $<HTMLFormElement>("model-form");
const choice = modelForm.elements.namedItem("model") as RadioNodeList;
const field = $<HTMLInputElement>("model-url");
choice.value = bundled ?? "other";
if (!bundled) field.value = named;
modelForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  const next = choice.value === "other" ? field.value.trim() : choice.value;
  if (!next) return field.focus();
  if (views.length && !(await confirm("Open the page with another model?", "The current conversation ends and is not kept.", "Open"))) return;
  // A navigation, not a new value: the content security policy of readable hosts is derived from the URL.
  location.assign(pageWith(next));
});
for (const link of document.querySelectorAll<HTMLAnchorElement>("[data-open]")) link.href = pageWith(link.dataset["open"] ?? "");
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    stop();
  }
});
watchScrolling();
$("jump").addEventListener("click", latest);
void showExamples(bundled, (example) => void pick(example).catch((error) => announce(told(error))));
void session.check();
