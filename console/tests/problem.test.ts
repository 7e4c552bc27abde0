import assert from "node:assert/strict";
import { test } from "node:test";

import { asProblem, Problem, problemOf } from "../src/problem.ts";
import { traceAddress } from "../src/trace-link.ts";
import { byWorkflow, sumOf, totals } from "../src/overview-numbers.ts";

test("problem details are taken apart", () => {
  const body = '{"title":"Wrong state","detail":"Run 1.a has ended.","code":"HR4102","why":"w","do":"d"}';
  const problem = problemOf(409, "Conflict", body, null);
  assert.deepEqual(
    [problem.status, problem.title, problem.detail, problem.code, problem.why, problem.advice],
    [409, "Wrong state", "Run 1.a has ended.", "HR4102", "w", "d"],
  );
});

test("a proxy's page, or nothing, is a problem too", () => {
  assert.equal(problemOf(502, "Bad Gateway", "<html>", null).title, "Bad Gateway");
  assert.equal(problemOf(500, "", "", null).title, "HTTP 500");
  assert.equal(problemOf(500, "", "[1]", null).detail, "");
  assert.equal(problemOf(400, "", '{"title":3}', null).title, "HTTP 400");
});

test("an outage is told from a refusal", () => {
  assert.ok(asProblem(new TypeError("Failed to fetch")).isOutage);
  assert.ok(asProblem(new DOMException("", "TimeoutError")).isOutage);
  assert.ok(problemOf(503, "", "", "7").isOutage);
  assert.equal(problemOf(503, "", "", "7").retryAfterS, 7);
  assert.equal(problemOf(503, "", "", "Wed, 21 Oct 2026 07:28:00 GMT").retryAfterS, null);
  assert.ok(!problemOf(404, "", "", null).isOutage);
  const own = new Problem(409, "x");
  assert.equal(asProblem(own), own);
});

test("a trace's address comes from the operator's template, and is one of the web", () => {
  const id = "a35909e48161c0f9d6705617930ec86a";
  assert.equal(traceAddress("https://tempo/trace/{trace_id}?x={trace_id}", id), `https://tempo/trace/${id}?x=${id}`);
  for (const template of ["", undefined, "https://tempo/", "javascript:alert('{trace_id}')", "{trace_id}"]) {
    assert.equal(traceAddress(template, id), "");
  }
  assert.equal(traceAddress("https://tempo/{trace_id}", "../x"), "");
});

test("a workflow's versions are counted together, the busiest first", () => {
  const row = (workflow: string, version: string, status: string, runs: number) => ({ namespace: "default", workflow, version, status, runs });
  const rows = byWorkflow([
    row("a", "1", "succeeded", 9),
    row("b", "1", "running", 1),
    row("b", "2", "running", 2),
    row("b", "2", "timed_out", 4),
  ]);
  assert.deepEqual(rows.map((each) => [each.workflow, each.total]), [["b", 7], ["a", 9]]);
  assert.deepEqual(totals(rows), { running: 3, timed_out: 4, succeeded: 9 });
  assert.equal(sumOf(totals(rows), "failed", "timed_out"), 4);
  const known = [{ namespace: "default", workflow: "a" }, { namespace: "shop", workflow: "c" }];
  assert.deepEqual(
    byWorkflow([row("a", "1", "failed", 2)], known).map((each) => [each.namespace, each.workflow, each.total]),
    [["default", "a", 2], ["shop", "c", 0]],
  );
});
