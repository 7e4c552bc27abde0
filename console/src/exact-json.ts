/** JSON as it was sent: numbers that JavaScript would round keep their digits. */

/** A number that is no exact `number`; `text` is how it was written. */
export class ExactNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toString(): string {
    return this.text;
  }
}

type Reviver = (this: unknown, key: string, value: unknown, context?: { source?: string }) => unknown;

const keptExact: Reviver = function (_key, value, context) {
  const source = context?.source;
  if (typeof value !== "number" || source === undefined) return value;
  return isExact(value, source) ? value : new ExactNumber(source);
};

/** Integers are compared as a whole, others by their significant digits. */
function isExact(value: number, source: string): boolean {
  if (!Number.isFinite(value)) return false;
  if (/^-?\d+$/.test(source)) return Number.isSafeInteger(value);
  return source.replace(/[eE].*$/, "").replace(/\D/g, "").replace(/^0+/, "").length <= 15;
}

/** Parse; a browser without access to the source of numbers rounds them, as `JSON.parse` does. Throws SyntaxError. */
export function parse(text: string): unknown {
  return JSON.parse(text, keptExact as (this: unknown, key: string, value: unknown) => unknown);
}

/** Print with two spaces of indentation, numbers as they came. */
export function print(value: unknown, indent = ""): string {
  if (value instanceof ExactNumber) return value.text;
  if (value === undefined) return "null";
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((each) => inner + print(each, inner)).join(",\n")}\n${indent}]`;
  }
  const members = Object.entries(value);
  if (members.length === 0) return "{}";
  const lines = members.map(([key, each]) => `${inner}${JSON.stringify(key)}: ${print(each, inner)}`);
  return `{\n${lines.join(",\n")}\n${indent}}`;
}
