/** Records for tests, with the shapes of the API. */

import type { HistoryEntry, RunDetail, RunSummary } from "../src/shapes.ts";

export function summary(facts: Partial<RunSummary> = {}): RunSummary {
  return {
    id: "1.aa",
    workflow: "fulfil",
    namespace: "default",
    version: "1",
    status: "running",
    key: "A-1",
    trigger: "event",
    source: "orders/2/6",
    started_at: "2026-11-22T06:00:00.000Z",
    ended_at: null,
    duration_ms: null,
    attempts: 0,
    retries: 0,
    error: "",
    message: "",
    failed_step: "",
    parked: "",
    retry_of: "",
    retriable: false,
    ...facts,
  };
}

export function detail(facts: Partial<RunDetail> = {}): RunDetail {
  return {
    ...summary(),
    input: {},
    result: null,
    waiting: [],
    joined: 0,
    undone: 0,
    undo_failed: 0,
    parked_step: "",
    expected: "",
    found: "",
    retry: "",
    trace_id: "",
    producer_trace_id: "",
    ...facts,
  };
}

/** At so many milliseconds after the run's start. */
export function entry(at: number, kind: string, facts: Partial<HistoryEntry> = {}): HistoryEntry {
  return {
    offset: at,
    time: new Date(Date.parse("2026-11-22T06:00:00.000Z") + at).toISOString(),
    kind,
    step: null,
    handler: null,
    attempt: null,
    duration_ms: null,
    cause: null,
    error: null,
    message: null,
    retry_after_ms: null,
    detail: "",
    effect: "accepted",
    reason: null,
    record: null,
    ...facts,
  };
}
