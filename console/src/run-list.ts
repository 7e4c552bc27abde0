/** A page of runs, kept current by what the stream says. Pure. */

import { instant } from "./format.ts";
import type { RunSummary } from "./shapes.ts";

export interface RunQuery {
  statuses: ReadonlySet<string>;
  /** As name or namespace/name; "" is any. */
  workflow: string;
  key: string;
  /** Started at or after, milliseconds since 1970; null is any. */
  sinceMs: number | null;
}

/** Does the filter let this run through? As the service judges it. */
export function matches(run: RunSummary, query: RunQuery): boolean {
  if (query.statuses.size > 0 && !query.statuses.has(run.status)) return false;
  if (query.workflow !== "" && query.workflow !== run.workflow && query.workflow !== `${run.namespace}/${run.workflow}`) {
    return false;
  }
  if (query.key !== "" && query.key !== run.key) return false;
  return query.sinceMs === null || (instant(run.started_at) ?? 0) >= query.sinceMs;
}

/**
 * The list with this run in its present state, newest first, at most `limit` long; the same array if nothing changed.
 *
 * On a later page (`isFirst` false) only runs that are there already are replaced. A run that the filter lets through no
 * more stays, with its new state, until the list is read anew: a row that vanishes under the pointer helps nobody.
 */
export function merged(
  runs: readonly RunSummary[],
  run: RunSummary,
  query: RunQuery,
  { limit, isFirst }: { limit: number; isFirst: boolean },
): readonly RunSummary[] {
  const at = runs.findIndex((each) => each.id === run.id);
  if (at >= 0) {
    const known = runs[at];
    if (known !== undefined && isOlder(run, known)) return runs;
    return runs.with(at, run);
  }
  if (!isFirst || !matches(run, query)) return runs;
  const place = runs.findIndex((each) => comesBefore(run, each));
  if (place < 0 && runs.length >= limit) return runs;
  return runs.toSpliced(place < 0 ? runs.length : place, 0, run).slice(0, limit);
}

/** An ended run never opens again: what says otherwise was said before. */
function isOlder(said: RunSummary, known: RunSummary): boolean {
  return said.ended_at === null && known.ended_at !== null;
}

function comesBefore(one: RunSummary, other: RunSummary): boolean {
  const started = (instant(one.started_at) ?? 0) - (instant(other.started_at) ?? 0);
  return started > 0 || (started === 0 && one.id < other.id);
}

/** `15m`, `1h`, `7d` as milliseconds; null for anything else. */
export function sinceOf(text: string): number | null {
  const found = /^(\d{1,6})([smhd])$/.exec(text);
  if (found === null) return null;
  const units: Record<string, number> = { s: 1e3, m: 6e4, h: 36e5, d: 864e5 };
  return Number(found[1]) * (units[found[2] ?? ""] ?? 0);
}
