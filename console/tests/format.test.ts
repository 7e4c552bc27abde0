import assert from "node:assert/strict";
import { test } from "node:test";

import { count, counted, duration, instant, percent, relative, utcTime, words } from "../src/format.ts";

test("durations have two units at most, and never say 60 s", () => {
  const said: [number | null, string][] = [
    [null, "–"],
    [-5, "0 ms"],
    [0, "0 ms"],
    [0.073, "0.1 ms"],
    [44.253, "44 ms"],
    [876, "876 ms"],
    [999.9, "999 ms"],
    [1_200, "1.2 s"],
    [9_999, "9.9 s"],
    [59_999, "59 s"],
    [60_000, "1 min"],
    [200_000, "3 min 20 s"],
    [7_500_000, "2 h 5 min"],
    [273_600_000, "3 d 4 h"],
  ];
  for (const [ms, text] of said) assert.equal(duration(ms), text);
});

test("times are in UTC where it is said, and relative to now", () => {
  const at = instant("2026-11-22T06:22:39.110Z") ?? 0;
  assert.equal(utcTime(at), "2026-11-22 06:22:39.110 UTC");
  assert.equal(relative(at, at + 125_000), "2 min 5 s ago");
  assert.equal(relative(at, at - 5_000), "in 5.0 s");
  for (const none of ["", null, undefined, "soon"]) assert.equal(instant(none), null);
});

test("counts, shares and names are for people", () => {
  assert.equal(counted(1, "run"), "1 run");
  assert.equal(counted(0, "run"), "0 runs");
  assert.equal(count(null), "–");
  assert.equal(percent(0.849), "85 %");
  assert.equal(percent(null), "–");
  assert.equal(words("timed_out"), "timed out");
});
