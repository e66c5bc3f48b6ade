/** Chromium's traces: how long the page's main thread was busy at a time. */

/** Categories that hold the tasks of a thread, with its own CPU time. */
export const CATEGORIES = ["toplevel", "disabled-by-default-devtools.timeline", "devtools.timeline", "blink.user_timing", "v8.execute", "__metadata"];

const TASKS = new Set(["RunTask", "ThreadControllerImpl::RunTask"]);

/**
 * The tasks of the thread that the page's script ran on, with the milliseconds of CPU time that each took.
 *
 * @param {{ traceEvents: object[] }} trace
 * @param {string} mark A user timing mark that the page's script made: its thread is the page's main thread.
 */
export function mainThreadTasks({ traceEvents }, mark) {
  const made = traceEvents.find(({ cat, name }) => cat?.includes("blink.user_timing") && name === mark);
  if (!made) throw new Error(`The trace has no mark "${mark}", so its main thread is not known.`);
  const tasks = traceEvents.filter(({ name, ph, pid, tid }) => ph === "X" && TASKS.has(name) && pid === made.pid && tid === made.tid);
  if (!tasks.length) throw new Error("The trace has no tasks on the main thread.");
  if (tasks.every(({ tdur }) => tdur === undefined)) throw new Error("The trace's tasks do not tell their CPU time.");
  // The shortest ones do not; they cannot have taken more than there was.
  return tasks.map(({ ts, tdur, dur }) => ({ at: ts / 1000, cpu: (tdur ?? dur) / 1000, wall: dur / 1000 }));
}

/** What ran within a task that took long, longest first: for the message of a failure. */
export function within({ traceEvents }, { at, wall }) {
  const inside = traceEvents.filter(({ ph, ts, dur, name }) => ph === "X" && !TASKS.has(name) && ts / 1000 >= at && (ts + dur) / 1000 <= at + wall);
  return inside
    .sort((a, b) => b.dur - a.dur)
    .slice(0, 5)
    .map(({ name, dur, args }) => `${name} ${(dur / 1000).toFixed(1)} ms ${JSON.stringify(args?.data?.functionName ?? args?.data?.url ?? "")}`);
}
