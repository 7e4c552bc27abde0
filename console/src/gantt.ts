/** Draws a timeline: a label and a strip for each step. The history table says the same in words. */

import { h, svg, type Child } from "./element.ts";
import { duration } from "./format.ts";
import { ticks, type Piece, type Row, type Timeline } from "./timeline.ts";

const WIDTH = 1000;
const HEIGHT = 20;
const SMALLEST = 4; // of a piece: what took no time is still seen
const ROWS_AT_ONCE = 200;

export function gantt(timeline: Timeline): HTMLElement {
  const rows = h("div", { class: "gantt-rows" });
  const box = h("div", { class: "gantt" }, axis(timeline), rows);
  let drawn = 0;
  const more = h("button", { type: "button", class: "quiet" });
  const draw = (): void => {
    rows.append(...timeline.rows.slice(drawn, drawn + ROWS_AT_ONCE).map((row) => strip(row, timeline)));
    drawn = Math.min(drawn + ROWS_AT_ONCE, timeline.rows.length);
    more.textContent = `Show ${Math.min(ROWS_AT_ONCE, timeline.rows.length - drawn)} more steps`;
    more.hidden = drawn >= timeline.rows.length;
  };
  more.addEventListener("click", draw);
  draw();
  box.append(more, legend(timeline));
  return box;
}

function axis(timeline: Timeline): HTMLElement {
  const length = timeline.to - timeline.from;
  const marks = ticks(length, 5).map((at) => {
    const mark = h("span", { class: "tick" }, at === 0 ? "0" : `+${duration(at)}`);
    mark.style.setProperty("left", `${(at / length) * 100}%`);
    return mark;
  });
  return h("div", { class: "gantt-axis", "aria-hidden": "true" }, h("div", { class: "gantt-scale" }, marks));
}

function strip(row: Row, timeline: Timeline): HTMLElement {
  const pieces = row.pieces.map((piece) => bar(piece, timeline));
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "strip", role: "img", "aria-label": told(row) },
    pieces,
  );
  return h(
    "div",
    { class: row.isUndo ? "gantt-row undo" : "gantt-row" },
    h("div", { class: "gantt-label", title: row.step }, label(row)),
    drawing,
  );
}

function label(row: Row): Child {
  if (row.step === "") return "run";
  return row.handler === "" || row.step.endsWith(`/${row.handler}`)
    ? row.step
    : [row.handler, h("small", {}, ` ${row.step}`)];
}

function told(row: Row): string {
  const name = row.step === "" ? "the run" : row.step;
  return `${name}: ${row.pieces.map(sentence).join("; ")}`;
}

function sentence(piece: Piece): string {
  const length = piece.to - piece.from;
  return length > 0 ? `${piece.says} (${duration(length)}${piece.open ? " so far" : ""})` : piece.says;
}

function bar(piece: Piece, timeline: Timeline): SVGElement {
  const length = timeline.to - timeline.from;
  const width = Math.max(SMALLEST, ((piece.to - piece.from) / length) * WIDTH);
  const x = Math.min(((piece.from - timeline.from) / length) * WIDTH, WIDTH - width);
  const isThin = piece.kind === "retry-wait" || piece.kind === "wait" || piece.kind === "queued";
  const height = isThin ? 6 : 14;
  const shape = svg("rect", {
    x: Math.max(0, x).toFixed(2),
    width: width.toFixed(2),
    y: (HEIGHT - height) / 2,
    height,
    class: piece.open ? `piece ${piece.kind} open` : `piece ${piece.kind}`,
  });
  shape.append(svg("title", {}, sentence(piece)));
  return shape;
}

const NAMES: Record<Piece["kind"], string> = {
  succeeded: "attempt succeeded",
  failed: "attempt failed",
  "retry-wait": "waits for the next attempt",
  wait: "waits",
  queued: "waits for its key",
  parked: "parked",
  message: "event sent",
  copied: "copied from the run before",
  cancelled: "cancelled",
};

function legend(timeline: Timeline): HTMLElement {
  const kinds = new Set(timeline.rows.flatMap((row) => row.pieces.map((piece) => piece.kind)));
  const items = [...kinds].map((kind) => h("li", {}, h("i", { class: `swatch ${kind}` }), NAMES[kind]));
  return h("ul", { class: "legend", "aria-label": "Legend" }, items);
}
