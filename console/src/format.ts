/** How times, durations and counts are said. Pure, but for the browser's own language and time zone. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Two units at most: `876 ms`, `1.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. Negative is said as 0. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  const at = Math.max(0, ms);
  if (at < 10 && at !== Math.round(at)) return `${at.toFixed(1)} ms`;
  if (at < SECOND) return `${Math.min(999, Math.round(at))} ms`;
  if (at < 10 * SECOND) return `${(Math.floor(at / 100) / 10).toFixed(1)} s`;
  if (at < MINUTE) return `${Math.floor(at / SECOND)} s`;
  if (at < HOUR) return pair(at, MINUTE, "min", SECOND, "s");
  if (at < DAY) return pair(at, HOUR, "h", MINUTE, "min");
  return pair(at, DAY, "d", HOUR, "h");
}

function pair(ms: number, large: number, largeName: string, small: number, smallName: string): string {
  const whole = Math.floor(ms / large);
  const rest = Math.floor((ms % large) / small);
  return rest === 0 ? `${whole} ${largeName}` : `${whole} ${largeName} ${rest} ${smallName}`;
}

/** Milliseconds since 1970 of an RFC 3339 time; null if it is none. */
export function instant(time: string | null | undefined): number | null {
  if (!time) return null;
  const at = Date.parse(time);
  return Number.isNaN(at) ? null : at;
}

/** In the reader's own zone: today's as a time, others with their day; exact: with milliseconds. */
export function localTime(at: number, now: number, isExact = false): string {
  const when = new Date(at);
  const parts: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  if (isExact) parts.fractionalSecondDigits = 3;
  const clock = when.toLocaleTimeString(undefined, parts);
  const today = new Date(now);
  if (when.toDateString() === today.toDateString()) return clock;
  const day: Intl.DateTimeFormatOptions = { day: "numeric", month: "short" };
  if (when.getFullYear() !== today.getFullYear()) day.year = "numeric";
  return `${when.toLocaleDateString(undefined, day)}, ${clock}`;
}

/** `2026-11-22 06:22:39.110 UTC` */
export function utcTime(at: number): string {
  return new Date(at).toISOString().replace("T", " ").replace("Z", " UTC");
}

/** `in 3 h 5 min`, `2 min ago`. */
export function relative(at: number, now: number): string {
  return at >= now ? `in ${duration(at - now)}` : `${duration(now - at)} ago`;
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : value.toLocaleString();
}

/** `1 run`, `2 runs` */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A share for people: `85 %`; null and what is no number is a dash. */
export function percent(ratio: number | null | undefined): string {
  return ratio === null || ratio === undefined || !Number.isFinite(ratio) ? "–" : `${Math.round(ratio * 100)} %`;
}

/** `timed_out` is `timed out` for people. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}
