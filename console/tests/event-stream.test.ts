import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser } from "../src/event-stream.ts";

const STREAM =
  ": hello\n\nid: 1\nevent: run.started\ndata: {\"a\":\ndata: 1}\n\r\nid: 2\r\ndata: x\r\n\r\nevent: empty\n\ndata\nid: a\0b\n\n";

const SAID = [
  { type: "run.started", data: '{"a":\n1}', id: "1" },
  { type: "message", data: "x", id: "2" },
  { type: "message", data: "", id: "2" },
];

test("events come out whole, wherever the stream is cut", () => {
  for (let size = 1; size <= STREAM.length; size += 1) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.feed(STREAM.slice(at, at + size)));
    assert.deepEqual(events, SAID, `pieces of ${size}`);
  }
});

test("the id of an earlier connection stays until another is said", () => {
  assert.deepEqual(new EventParser("7").feed("data: x\n\n"), [{ type: "message", data: "x", id: "7" }]);
});

test("what has no end is refused", () => {
  assert.throws(() => new EventParser().feed("data: ".padEnd(2_000_000, "x")), RangeError);
  const parser = new EventParser();
  assert.throws(() => {
    for (let line = 0; line < 3_000; line += 1) parser.feed(`data: ${"x".repeat(1_000)}\n`);
  }, RangeError);
});
