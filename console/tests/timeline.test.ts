import assert from "node:assert/strict";
import { test } from "node:test";

import { ticks, timelineOf, type Piece } from "../src/timeline.ts";
import { detail, entry } from "./run.ts";

const START = Date.parse("2026-11-22T06:00:00.000Z");

/** `kind from-to`, in milliseconds from the start. */
function drawn(pieces: readonly Piece[] | undefined): string[] {
  return (pieces ?? []).map(({ kind, from, to, open }) => `${kind} ${from - START}-${to - START}${open ? "+" : ""}`);
}

test("attempts end when their record was written, and waits lie between them", () => {
  const run = detail({ status: "succeeded", ended_at: new Date(START + 900).toISOString() });
  const timeline = timelineOf(
    run,
    [
      entry(0, "start"),
      entry(100, "attempt.failed", { step: "/1/pay", handler: "pay", attempt: 1, duration_ms: 40, retry_after_ms: 200 }),
      entry(400, "attempt.failed", { step: "/1/pay", handler: "pay", attempt: 2, duration_ms: 50, error: "Down" }),
      entry(900, "run.ended"),
    ],
    START + 5_000,
  );
  assert.deepEqual(drawn(timeline.rows[0]?.pieces), ["failed 60-100", "retry-wait 100-350", "failed 350-400"]);
  assert.equal(timeline.rows[0]?.pieces[2]?.says, "attempt 2 failed: Down");
  assert.deepEqual([timeline.from - START, timeline.to - START], [0, 900]);
});

test("what is said of a run after its end does not lengthen it", () => {
  const ended = detail({ status: "failed", ended_at: new Date(START + 30).toISOString() });
  assert.equal(timelineOf(ended, [entry(0, "start"), entry(9_000, "retry")], START + 10_000).to - START, 30);
});

test("what the run waits for is open until now", () => {
  const timeline = timelineOf(
    detail(),
    [
      entry(0, "start"),
      entry(10, "timer.armed", { step: "/1/sleep", detail: "due later" }),
      entry(20, "attempt.failed", { step: "/2/pay", attempt: 1, duration_ms: 5, retry_after_ms: 60_000 }),
    ],
    START + 1_000,
  );
  assert.deepEqual(drawn(timeline.rows.find((row) => row.step === "/1/sleep")?.pieces), ["wait 10-1000+"]);
  assert.deepEqual(drawn(timeline.rows.find((row) => row.step === "/2/pay")?.pieces), ["failed 15-20", "retry-wait 20-1000+"]);
});

test("a wait that only the run's state knows is shown too", () => {
  const waiting = [{ step: "/3/sleep", waits_for: "timer", until: "2026-11-23T00:00:00Z" }];
  const timeline = timelineOf(detail({ waiting }), [entry(0, "start"), entry(50, "trimmed", { effect: "checkpoint" })], START + 100);
  assert.deepEqual(drawn(timeline.rows[0]?.pieces), ["wait 50-100+"]);
});

test("records that do not count draw nothing", () => {
  const late = entry(10, "attempt.succeeded", { step: "/1/pay", duration_ms: 5, effect: "skipped", reason: "stale_token" });
  assert.deepEqual(timelineOf(detail(), [late], START + 100).rows, []);
});

test("a parked run is parked until it is resumed, and no longer than it lives", () => {
  const ended = detail({ status: "cancelled", ended_at: new Date(START + 80).toISOString() });
  const parked = [entry(10, "run.parked", { step: "/1/pay" }), entry(40, "resume"), entry(60, "run.parked")];
  const [row] = timelineOf(ended, parked, START + 1_000).rows;
  assert.equal(row?.step, "");
  assert.deepEqual(drawn(row?.pieces), ["parked 10-40", "parked 60-80"]);
});

test("an awaited child is waited for, a detached one is not", () => {
  const child = { run: "2.b", workflow: "pay", status: null };
  const children = [
    { ...child, step: "/1/pay", awaited: true },
    { ...child, step: "/2/pay", awaited: false },
  ];
  const began = (step: string) => entry(10, "child.started", { step });
  const rows = timelineOf(
    detail({ children }),
    [began("/1/pay"), began("/2/pay"), entry(60, "child.ended", { step: "/1/pay" })],
    START + 100,
  ).rows;
  assert.deepEqual(rows.map((row) => drawn(row.pieces)), [["wait 10-60"], ["message 10-10"]]);
});

test("a decision ends the wait for it", () => {
  const entries = [entry(10, "approval.requested", { step: "/1/approval" }), entry(40, "approve", { step: "/1/approval" })];
  assert.deepEqual(drawn(timelineOf(detail(), entries, START + 100).rows[0]?.pieces), ["wait 10-40"]);
});

test("cancelled steps end where they were cancelled", () => {
  const entries = [
    entry(5, "timer.armed", { step: "/1/sleep" }),
    entry(6, "timer.armed", { step: "/2/sleep" }),
    entry(50, "steps.cancelled", { detail: "/1/sleep, /2/sleep" }),
  ];
  const rows = timelineOf(detail(), entries, START + 100).rows;
  assert.deepEqual(rows.map((row) => drawn(row.pieces)), [["cancelled 5-50"], ["cancelled 6-50"]]);
});

test("rows are in the order of their beginnings, steps by their numbers", () => {
  const at = (step: string) => entry(10, "emitted", { step });
  const rows = timelineOf(detail(), [at("/10/emit"), at("/2/emit")], START + 100).rows;
  assert.deepEqual(rows.map((row) => row.step), ["/2/emit", "/10/emit"]);
});

test("an attempt that began before the run's start by the log's clock widens the picture", () => {
  const early = entry(10, "attempt.succeeded", { step: "/1/pay", duration_ms: 30 });
  assert.equal(timelineOf(detail(), [early], START + 100).from, START - 20);
});

test("the axis has a few round marks at any length", () => {
  for (const length of [1, 876, 59_000, 3_600_000, 86_400_000, 40 * 86_400_000, 4_000 * 86_400_000]) {
    const marks = ticks(length, 4);
    assert.equal(marks[0], 0);
    assert.ok(marks.length <= 5, `${length}: ${marks.length}`);
    assert.ok(marks.every((mark) => mark <= length));
  }
  assert.deepEqual(ticks(900, 4), [0, 500]);
});
