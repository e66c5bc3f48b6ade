/** The benchmark, which makes the same calls as a conversation. Imported on demand. */

import type { Costs, Emu, Message, Progress } from "emu-webgpu";

import type { Session } from "./session.js";

const RUNS = 5;
const SEED = 7;
const QUESTION = "what is this?";
/** A temperature so high that answers hardly ever end by themselves: they have the requested number of tokens. */
const HOT = 20;
const TOKENS = 48;

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const round = (value: number): number => Number(value.toPrecision(4));

/** A picture that is the same on every machine: a disc on a plain background. */
function testPicture(side: number): ImageData {
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    const [x, y] = [(i % side) / side - 0.5, Math.floor(i / side) / side - 0.5];
    image.data.set(x * x + y * y < 0.09 ? [220, 60, 50, 255] : [80, 140, 220, 255], i * 4);
  }
  return image;
}

/** Milliseconds of each phase of loading. */
const times = ({ tracker }: Session) => Object.fromEntries([...tracker.times].map(([phase, ms]) => [phase, Math.round(ms)]));

/** Counts main-thread tasks over 50 ms until the returned function is called. There should be none. */
function longTasks(): () => { count: number; longest_ms: number } | null {
  const found: number[] = [];
  if (!PerformanceObserver.supportedEntryTypes.includes("longtask")) return () => null;
  const observer = new PerformanceObserver((list) => found.push(...list.getEntries().map(({ duration }) => duration)));
  observer.observe({ entryTypes: ["longtask"] });
  return () => {
    observer.disconnect();
    return { count: found.length, longest_ms: Math.round(Math.max(0, ...found)) };
  };
}

/** Runs something {@link RUNS} times. */
async function repeat<T>(once: () => Promise<T>): Promise<{ result: T; ms: number }[]> {
  const runs = [];
  while (runs.length < RUNS) {
    const start = performance.now();
    runs.push({ result: await once(), ms: performance.now() - start });
  }
  return runs;
}

/** Cost per token or step: the difference of two calls divided by how many more the first made. */
export function costsEach(more: Costs, less: Costs, made: number) {
  const each = (key: keyof Costs) => round((more[key] - less[key]) / Math.max(1, made));
  return {
    launches: each("launches"),
    submits: each("submits"),
    read_backs: each("readBacks"),
    read_back_bytes: each("readBackBytes"),
    weight_bytes: each("weightBytes"),
  };
}

/** The costs of a single call. */
async function counted<T>(emu: Emu, call: () => Promise<T>): Promise<{ result: T; costs: Costs }> {
  const before = await emu.costs();
  const result = await call();
  const after = await emu.costs();
  const costs = { ...after };
  for (const key of Object.keys(costs) as (keyof Costs)[]) costs[key] -= before[key];
  return { result, costs };
}

async function caption(emu: Emu, image: ImageData, signal: AbortSignal) {
  const times = (await repeat(() => emu.caption(image, { seed: SEED, signal }))).map(({ ms }) => ms);
  return { runs: RUNS, first_ms: round(times[0] ?? 0), median_ms: round(median(times)) };
}

async function chat(emu: Emu, image: ImageData, signal: AbortSignal) {
  const messages: Message[] = [{ role: "user", content: [image, QUESTION] }];
  const answer = async (maxNewTokens: number) => {
    const start = performance.now();
    let first = 0;
    let usage = { promptTokens: 0, tokens: 0 };
    for await (const event of emu.chat(messages, { seed: SEED, temperature: HOT, images: false, maxNewTokens, signal })) {
      if (event.type === "text") first ||= performance.now() - start;
      if (event.type === "usage") usage = event;
    }
    return { ...usage, first };
  };
  const runs = await repeat(() => answer(TOKENS));
  const { promptTokens = 0, tokens = 0 } = runs[0]?.result ?? {};
  // Both calls have the same prompt, so its cost cancels out.
  const [long, short] = [await counted(emu, () => answer(TOKENS)), await counted(emu, () => answer(1))];
  const each = costsEach(long.costs, short.costs, long.result.tokens - short.result.tokens);
  const { tokenWeightBytes } = await emu.costs();
  return {
    runs: RUNS,
    prompt_tokens: promptTokens,
    tokens,
    first_token_ms: round(median(runs.map(({ result }) => result.first))),
    ms_per_token: round(median(runs.map(({ result, ms }) => (ms - result.first) / Math.max(1, tokens - 1)))),
    per_token: { ...each, weight_bytes_over_needed: round(each.weight_bytes / Math.max(1, tokenWeightBytes)) },
  };
}

async function draw(emu: Emu, session: Session, signal: AbortSignal) {
  session.tracker.begin();
  const at: number[] = [];
  let steps = 0;
  const onProgress = (progress: Progress) => {
    session.tracker.take(progress);
    if (progress.phase !== "denoise") return;
    at.push(performance.now());
    steps = progress.steps;
  };
  const parts = [{ type: "text" as const, text: "an apple on a blue background" }];
  // Without previews: each costs a read-back.
  const common = { seed: SEED, previewEvery: 0, signal };
  const start = performance.now();
  const whole = await counted(emu, () => emu.generateImage(parts, { ...common, onProgress }));
  const ms = performance.now() - start;
  const gaps = at.slice(1).map((time, index) => time - (at[index] ?? time));
  const one = await counted(emu, () => emu.generateImage(parts, { ...common, steps: 1 }));
  const { image } = whole.result;
  const each = costsEach(whole.costs, one.costs, steps - 1);
  return { width: image.width, height: image.height, steps, ms_per_step: round(median(gaps)), whole_ms: round(ms), per_step: each };
}

/** Runs the whole benchmark. Loads the model first if necessary, and reports that time separately. */
export async function measure(session: Session, signal: AbortSignal, tell: (text: string) => void) {
  const tasks = longTasks();
  tell("Loading");
  const before = performance.now();
  const warm = session.state === "ready";
  const emu = await session.ready(signal);
  const load = { already_loaded: warm, ms: warm ? 0 : Math.round(performance.now() - before), phases_ms: warm ? {} : times(session) };
  const image = testPicture(session.support?.model.imageSize ?? 64);
  tell("Describing");
  const captions = await caption(emu, image, signal);
  tell("Answering");
  const answers = await chat(emu, image, signal);
  let drawing = null;
  if (session.support?.model.draws) {
    tell("Drawing");
    drawing = await draw(emu, session, signal);
  }
  const { model, adapter, plan } = session.support ?? {};
  return {
    benchmark: 1,
    date: new Date().toISOString(),
    browser: navigator.userAgent,
    threads: navigator.hardwareConcurrency,
    device: session.used,
    adapter,
    model: { ...model, url: session.url, plan },
    load,
    caption: captions,
    chat: answers,
    draw: drawing,
    memory: await session.memory(),
    pipelines: (await emu.costs()).pipelines,
    main_thread_tasks_over_50_ms: tasks(),
  };
}
