import assert from "node:assert/strict";
import { test } from "node:test";

import { ExactNumber, parse, print } from "../src/exact-json.ts";

test("what JavaScript would round is shown as it came", () => {
  for (const text of ["12345678901234567890", "-9007199254740993", "1e400", "0.12345678901234567890"]) {
    assert.ok(parse(text) instanceof ExactNumber, text);
    assert.equal(print(parse(text)), text);
  }
});

test("ordinary numbers are numbers", () => {
  for (const [text, value] of [["0", 0], ["-3", -3], ["44.253", 44.253], ["1e3", 1000], ["9007199254740991", 2 ** 53 - 1]] as const) {
    assert.equal(parse(text), value);
  }
});

test("printing is the inverse of parsing", () => {
  const text = '{"a":[1,12345678901234567890,{"b":null}],"c":"<img src=x onerror=alert(1)>","e":{},"f":[],"__proto__":true}';
  assert.deepEqual(JSON.parse(print(JSON.parse(text))), JSON.parse(text));
  assert.equal(print(parse(text)).replace(/\n */g, "").replaceAll(": ", ":"), text);
});

test("what is no JSON is an error", () => {
  assert.throws(() => parse("{"), SyntaxError);
});
