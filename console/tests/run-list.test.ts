import assert from "node:assert/strict";
import { test } from "node:test";

import { matches, merged, sinceOf, type RunQuery } from "../src/run-list.ts";
import { summary } from "./run.ts";

const ANY: RunQuery = { statuses: new Set(), workflow: "", key: "", sinceMs: null };
const FIRST = { limit: 3, isFirst: true };

const at = (second: number, id: string, status = "running") =>
  summary({ id, status, started_at: `2026-11-22T06:00:0${second}.000Z`, ended_at: status === "running" ? null : "2026-11-22T07:00:00Z" });

const ids = (runs: readonly { id: string }[]) => runs.map((run) => run.id);

test("a new run comes where its start puts it, and the last one leaves", () => {
  const runs = [at(5, "c"), at(3, "b"), at(1, "a")];
  assert.deepEqual(ids(merged(runs, at(6, "d"), ANY, FIRST)), ["d", "c", "b"]);
  assert.deepEqual(ids(merged(runs, at(4, "d"), ANY, FIRST)), ["c", "d", "b"]);
  assert.equal(merged(runs, at(0, "d"), ANY, FIRST), runs);
  assert.deepEqual(ids(merged([], at(0, "d"), ANY, FIRST)), ["d"]);
});

test("a run that is there is replaced where it is, also if the filter would not let it in", () => {
  const runs = [at(5, "b"), at(3, "a")];
  const query = { ...ANY, statuses: new Set(["running"]) };
  const next = merged(runs, at(3, "a", "failed"), query, FIRST);
  assert.deepEqual(next.map((run) => `${run.id} ${run.status}`), ["b running", "a failed"]);
});

test("an ended run does not open again", () => {
  const runs = [at(5, "a", "succeeded")];
  assert.equal(merged(runs, at(5, "a", "running"), ANY, FIRST), runs);
});

test("a later page takes no new runs", () => {
  const runs = [at(5, "a")];
  assert.equal(merged(runs, at(6, "b"), ANY, { limit: 3, isFirst: false }), runs);
});

test("the filter is the service's", () => {
  const run = summary({ namespace: "shop", workflow: "fulfil", key: "A-1", status: "failed" });
  const yes: Partial<RunQuery>[] = [
    {},
    { workflow: "fulfil" },
    { workflow: "shop/fulfil" },
    { key: "A-1" },
    { statuses: new Set(["failed", "parked"]) },
    { sinceMs: Date.parse("2026-11-22T06:00:00Z") },
  ];
  const no: Partial<RunQuery>[] = [
    { workflow: "shop" },
    { workflow: "default/fulfil" },
    { key: "A" },
    { statuses: new Set(["parked"]) },
    { sinceMs: Date.parse("2026-11-22T06:00:01Z") },
  ];
  for (const query of yes) assert.ok(matches(run, { ...ANY, ...query }), JSON.stringify(query));
  for (const query of no) assert.ok(!matches(run, { ...ANY, ...query }), JSON.stringify(query));
});

test("times back are read, all else is none", () => {
  assert.equal(sinceOf("15m"), 900_000);
  assert.equal(sinceOf("7d"), 7 * 86_400_000);
  for (const text of ["", "m", "1w", "-1h", "1h30m"]) assert.equal(sinceOf(text), null);
});
