import assert from "node:assert/strict";
import { test } from "node:test";

import { pathBelow, routeOf, runPath, runsPath, workflowPath } from "../src/route.ts";

const page = (path: string) => routeOf(path, "");

test("each page has its address", () => {
  assert.deepEqual(page(""), { page: "overview" });
  assert.deepEqual(page("/"), { page: "overview" });
  assert.deepEqual(page("runs/5.01ab"), { page: "run", id: "5.01ab" });
  assert.deepEqual(page("workflows/fulfil"), { page: "workflow", namespace: "default", name: "fulfil" });
  assert.deepEqual(page("workflows/shop/fulfil"), { page: "workflow", namespace: "shop", name: "fulfil" });
  for (const name of ["runs", "approvals", "schedules", "dead-letters"] as const) assert.equal(page(name).page, name);
});

test("what is no page is unknown, also a broken escape", () => {
  for (const path of ["nowhere", "runs/a/b", "workflows", "workflows/a/b/c", "runs/%zz", "approvals/x"]) {
    assert.equal(page(path).page, "unknown", path);
  }
});

test("an address leads back to what it was made for", () => {
  for (const name of ["fulfil", "a/b", "ü & ?", "100%", "..", "#x"]) {
    const there = routeOf(workflowPath("shop", name), "");
    assert.deepEqual(there, { page: "workflow", namespace: "shop", name });
    const near = routeOf(workflowPath("default", name), "");
    assert.deepEqual(near, { page: "workflow", namespace: "default", name });
    assert.deepEqual(routeOf(runPath(name), ""), { page: "run", id: name });
  }
});

test("a filter's empty values are left out", () => {
  assert.equal(runsPath({ status: "", workflow: null }), "runs");
  assert.equal(runsPath({ status: "failed,parked", key: "a&b" }), "runs?status=failed%2Cparked&key=a%26b");
});

test("pages lie below the base path", () => {
  assert.equal(pathBelow("/", "/runs/1"), "runs/1");
  assert.equal(pathBelow("/headrace/", "/headrace/runs"), "runs");
  assert.equal(pathBelow("/headrace/", "/headrace"), "");
  assert.equal(pathBelow("/headrace/", "/other"), null);
});
