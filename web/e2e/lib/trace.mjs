/** Chromium traces: how long each task kept the page's main thread busy. */

/** Trace categories with a thread's tasks and their CPU time. */
export const CATEGORIES = ["toplevel", "disabled-by-default-devtools.timeline", "devtools.timeline", "blink.user_timing", "v8.execute", "__metadata"];

const TASKS = new Set(["RunTask", "ThreadControllerImpl::RunTask"]);

/**
 * The tasks of the page's main thread, with the CPU time of each in milliseconds.
 *
 * @param {{ traceEvents: object[] }} trace
 * @param {string} mark A user timing mark set by the page's script, which identifies the main thread.
 */
export function mainThreadTasks({ traceEvents }, mark) {
  const made = traceEvents.find(({ cat, name }) => cat?.includes("blink.user_timing") && name === mark);
  if (!made) throw new Error(`The trace has no mark "${mark}", so its main thread is not known.`);
  const tasks = traceEvents.filter(({ name, ph, pid, tid }) => ph === "X" && TASKS.has(name) && pid === made.pid && tid === made.tid);
  if (!tasks.length) throw new Error("The trace has no tasks on the main thread.");
  if (tasks.every(({ tdur }) => tdur === undefined)) throw new Error("The trace's tasks do not tell their CPU time.");
  // The shortest tasks lack a CPU time; their wall time is an upper bound.
  return tasks.map(({ ts, tdur, dur }) => ({ at: ts / 1000, cpu: (tdur ?? dur) / 1000, wall: dur / 1000 }));
}

/** The longest events within a task, longest first: for a failure message. */
export function within({ traceEvents }, { at, wall }) {
  const inside = traceEvents.filter(({ ph, ts, dur, name }) => ph === "X" && !TASKS.has(name) && ts / 1000 >= at && (ts + dur) / 1000 <= at + wall);
  return inside
    .sort((a, b) => b.dur - a.dur)
    .slice(0, 5)
    .map(({ name, dur, args }) => `${name} ${(dur / 1000).toFixed(1)} ms ${JSON.stringify(args?.data?.functionName ?? args?.data?.url ?? "")}`);
}
