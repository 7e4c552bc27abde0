/**
 * A run's history as rows of a timeline: one row a step, one piece for each attempt, wait and message.
 *
 * All times are the log's: an attempt ends when its record was written and began `duration_ms` before. Attempts under
 * way are not in the log, so they are not shown; what the run waits for is. Pure: draws nothing, asks no clock.
 */

import { instant } from "./format.ts";
import type { HistoryEntry, RunDetail } from "./shapes.ts";

export type PieceKind =
  | "succeeded"
  | "failed"
  | "retry-wait"
  | "wait"
  | "queued"
  | "parked"
  | "message"
  | "copied"
  | "cancelled";

export interface Piece {
  kind: PieceKind;
  from: number;
  /** As `from` for what takes no time. */
  to: number;
  /** Not over: it lasts until now. */
  open: boolean;
  says: string;
}

export interface Row {
  /** The step's reference; "" is the run itself. */
  step: string;
  handler: string;
  isUndo: boolean;
  pieces: Piece[];
}

export interface Timeline {
  from: number;
  to: number;
  rows: Row[];
}

const OPENS: Record<string, { kind: PieceKind; says: string }> = {
  "timer.armed": { kind: "wait", says: "sleeps" },
  "approval.requested": { kind: "wait", says: "waits for an approval" },
  "child.started": { kind: "wait", says: "waits for a child run" },
};

const CLOSES: Record<string, string> = {
  "timer.fired": "over",
  approve: "decided",
  "approval.decided": "decided",
  "child.ended": "the child has ended",
};

/** Of a run as it is at `now` (milliseconds since 1970). Entries are in the log's order. */
export function timelineOf(run: RunDetail, entries: readonly HistoryEntry[], now: number): Timeline {
  const from = instant(run.started_at) ?? now;
  const builder = new Builder(from, new Set(run.children?.filter((child) => !child.awaited).map(({ step }) => step)));
  for (const entry of entries) if (entry.effect === "accepted" || entry.effect === "checkpoint") builder.add(entry);
  const end = instant(run.ended_at);
  if (end === null) for (const open of run.waiting) builder.waits(open.step, open.waits_for, instant(open.until), now);
  return builder.finish(end, now);
}

class Builder {
  private readonly rows = new Map<string, Row>();
  private latest: number;
  private readonly from: number;

  /** Steps that began a run and did not wait for it. */
  private readonly detached: ReadonlySet<string>;

  constructor(from: number, detached: ReadonlySet<string>) {
    this.from = from;
    this.detached = detached;
    this.latest = from;
  }

  add(entry: HistoryEntry): void {
    const at = instant(entry.time);
    if (at === null) return;
    this.latest = Math.max(this.latest, at);
    const step = entry.step ?? "";
    switch (entry.kind) {
      case "attempt.succeeded":
      case "attempt.failed":
        this.attempt(entry, step, at);
        return;
      case "emitted":
        this.put(step, "", { kind: "message", from: at, to: at, open: false, says: entry.detail });
        return;
      case "copied":
        this.put(step, entry.handler ?? "", { kind: "copied", from: at, to: at, open: false, says: entry.detail });
        return;
      case "run.parked":
        this.put("", "", { kind: "parked", from: at, to: at, open: true, says: `parked: ${entry.detail}` });
        return;
      case "resume":
        this.close("", at, "");
        return;
      case "queue.left":
        this.put("", "", { kind: "queued", from: this.from, to: at, open: false, says: "waited for its key" });
        return;
      case "steps.cancelled":
        for (const cancelled of entry.detail.split(", ")) this.close(cancelled, at, "cancelled", "cancelled");
        return;
    }
    if (entry.kind === "child.started" && this.detached.has(step)) {
      this.put(step, "", { kind: "message", from: at, to: at, open: false, says: entry.detail });
      return;
    }
    const opens = OPENS[entry.kind];
    if (opens !== undefined && step !== "") {
      const says = entry.detail === "" ? opens.says : `${opens.says}: ${entry.detail}`;
      this.put(step, entry.handler ?? "", { kind: opens.kind, from: at, to: at, open: true, says });
    }
    const closes = CLOSES[entry.kind];
    if (closes !== undefined) this.close(step, at, closes);
  }

  /** What the log says is still to come. */
  waits(step: string, what: string, until: number | null, now: number): void {
    const row = this.rows.get(step);
    if (row?.pieces.some((piece) => piece.open)) return;
    const from = Math.min(row?.pieces.at(-1)?.to ?? this.latest, now);
    const due = until === null ? "" : `, due ${new Date(until).toISOString()}`;
    this.put(step, "", { kind: "wait", from, to: now, open: true, says: `waits for ${what}${due}` });
  }

  finish(end: number | null, now: number): Timeline {
    for (const row of this.rows.values()) {
      for (const piece of row.pieces) {
        if (piece.open) {
          piece.to = Math.max(end ?? now, piece.from);
          piece.open = end === null;
        }
      }
    }
    const last = Math.max(...[...this.rows.values()].flatMap((row) => row.pieces.map((piece) => piece.to)), 0);
    const to = Math.max(end ?? now, last, this.from + 1);
    const first = (row: Row): number => row.pieces[0]?.from ?? 0;
    const rows = [...this.rows.values()].sort((one, other) => {
      if ((one.step === "") !== (other.step === "")) return one.step === "" ? -1 : 1;
      return first(one) - first(other) || inOrder(one.step, other.step);
    });
    return { from: Math.min(this.from, ...rows.map(first)), to, rows };
  }

  private attempt(entry: HistoryEntry, step: string, at: number): void {
    const from = at - (entry.duration_ms ?? 0);
    const before = this.rows.get(step)?.pieces.at(-1);
    if (before?.kind === "retry-wait") {
      before.open = false;
      before.to = Math.max(before.from, from);
    }
    const name = `attempt ${entry.attempt ?? 1}`;
    if (entry.kind === "attempt.succeeded") {
      this.put(step, entry.handler ?? "", { kind: "succeeded", from, to: at, open: false, says: `${name} succeeded` });
      return;
    }
    const error = [entry.cause, entry.error, entry.message].filter((part) => part).join(": ");
    this.put(step, entry.handler ?? "", { kind: "failed", from, to: at, open: false, says: `${name} failed: ${error}` });
    if (entry.retry_after_ms !== null) {
      const says = `waits for attempt ${(entry.attempt ?? 1) + 1}`;
      this.put(step, entry.handler ?? "", { kind: "retry-wait", from: at, to: at, open: true, says });
    }
  }

  private put(step: string, handler: string, piece: Piece): void {
    let row = this.rows.get(step);
    if (row === undefined) {
      row = { step, handler, isUndo: step.includes("/undo/"), pieces: [] };
      this.rows.set(step, row);
    }
    row.handler ||= handler;
    row.pieces.push(piece);
  }

  private close(step: string, at: number, says: string, kind?: PieceKind): void {
    const piece = this.rows.get(step)?.pieces.findLast((each) => each.open);
    if (piece === undefined) return;
    piece.open = false;
    piece.to = Math.max(piece.from, at);
    if (says !== "") piece.says += `; ${says}`;
    if (kind !== undefined) piece.kind = kind;
  }
}

/** `/2/pay` comes before `/10/pay`. */
function inOrder(one: string, other: string): number {
  return one.localeCompare(other, "en", { numeric: true });
}

const NICE_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5];
const DAY_MS = 864e5;

/** Where the axis of a timeline of this length has its marks: milliseconds from its start, at most `most` of them. */
export function ticks(length: number, most = 6): number[] {
  const rough = Math.max(length, 1) / most;
  const hours = [2, 3, 6, 12].map((each) => each * 36e5);
  const days = [1, 2, 7, 14, 30, 90, 365].map((each) => each * DAY_MS);
  const step = [...NICE_MS, ...hours, ...days].find((each) => each >= rough) ?? Math.ceil(rough / DAY_MS) * DAY_MS;
  const marks: number[] = [];
  for (let at = 0; at <= length; at += step) marks.push(at);
  return marks;
}
