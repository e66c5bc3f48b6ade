/** Number formats for display. */

/** Bytes in decimal units: "9.8 MB". */
export function bytes(count: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Two amounts with one unit where they share it: "4.1 of 9.8 MB". */
export function bytesOf(part: number, whole: number): string {
  const [a, b] = [bytes(part), bytes(whole)];
  const unit = b.slice(b.indexOf(" "));
  return `${a.endsWith(unit) ? a.slice(0, -unit.length) : a} of ${b}`;
}

/** A duration: "0.84 s", "12 s", "2 min 5 s". */
export function seconds(time: number): string {
  if (time < 9.95) return `${time.toFixed(time < 1 ? 2 : 1)} s`;
  if (time < 59.5) return `${Math.round(time)} s`;
  const whole = Math.round(time);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** "1 picture", "3 pictures". */
export const plural = (count: number, noun: string): string => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
