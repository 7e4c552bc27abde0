/** Small things that several pages show: a status, a time, a run's link, facts, payloads. */

import { h, type Child } from "./element.ts";
import { print } from "./exact-json.ts";
import { duration, instant, localTime, relative, utcTime, words } from "./format.ts";
import { runPath, workflowPath } from "./route.ts";
import type { RunSummary } from "./shapes.ts";

export function statusChip(status: string, more = ""): HTMLElement {
  return h("span", { class: "status", "data-status": status }, words(status), more !== "" && `: ${words(more)}`);
}

/** A time in the reader's zone; UTC when one points at it. */
export function time(at: string | null | undefined, { asRelative = false, isExact = false } = {}): Child {
  const when = instant(at);
  if (when === null || !at) return "–";
  const now = Date.now();
  return h("time", { datetime: at, title: utcTime(when) }, asRelative ? relative(when, now) : localTime(when, now, isExact));
}

export function runLink(id: string): HTMLElement {
  return h("a", { href: runPath(id), class: "id" }, id);
}

export function workflowLink(namespace: string, name: string): HTMLElement {
  const said = namespace === "default" ? name : `${namespace}/${name}`;
  return h("a", { href: workflowPath(namespace, name) }, said);
}

/** Name and value; those without a value are left out. */
export function facts(...rows: readonly [string, Child][]): HTMLElement {
  const told = rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return h("dl", { class: "facts" }, told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

const SHOWN_AT_ONCE = 20_000; // characters; more makes a page slow

/** JSON as it is in the log, with its numbers exact. */
export function payload(value: unknown, label: string): HTMLElement {
  return payloadText(print(value), label);
}

export function payloadText(text: string, label: string): HTMLElement {
  const code = h("pre", { class: "payload", tabindex: "0", "aria-label": label });
  code.textContent = text.length > SHOWN_AT_ONCE ? `${text.slice(0, SHOWN_AT_ONCE)}\n…` : text;
  const buttons = h("div", { class: "payload-buttons" }, copyButton(text));
  if (text.length > SHOWN_AT_ONCE) {
    const all = h("button", { type: "button", class: "quiet" }, `Show all ${text.length.toLocaleString()} characters`);
    all.addEventListener("click", () => {
      code.textContent = text;
      all.remove();
    });
    buttons.append(all);
  }
  return h("div", { class: "payload-box" }, code, buttons);
}

/** Nothing where the browser has no clipboard for us (plain HTTP on another machine). */
export function copyButton(text: string, name = "Copy"): Child {
  if (!("clipboard" in navigator)) return null;
  const button = h("button", { type: "button", class: "quiet" }, name);
  button.addEventListener("click", () => {
    void navigator.clipboard.writeText(text).then(
      () => (button.textContent = "Copied"),
      () => (button.textContent = "Not copied"),
    );
  });
  return button;
}

export interface Column<T> {
  name: string;
  /** What a cell holds. */
  cell(row: T): Child;
  isNumber?: boolean;
}

/** A table that becomes a list of cards on a narrow screen. */
export function table<T>(columns: readonly Column<T>[], rows: readonly T[], caption: string): HTMLElement {
  const head = columns.map(({ name, isNumber }) => h("th", { scope: "col", class: isNumber ? "number" : "" }, name));
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      columns.map((column) =>
        h("td", { "data-label": column.name, class: column.isNumber ? "number" : "" }, h("span", {}, column.cell(row))),
      ),
    ),
  );
  return h(
    "div",
    { class: "table-box" },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

export const runColumns: readonly Column<RunSummary>[] = [
  { name: "Status", cell: (run) => statusChip(run.status, run.parked) },
  { name: "Run", cell: (run) => runLink(run.id) },
  { name: "Workflow", cell: (run) => workflowLink(run.namespace, run.workflow) },
  { name: "Key", cell: (run) => (run.key === null ? "–" : h("span", { class: "key", title: run.key }, run.key)) },
  { name: "Started", cell: (run) => time(run.started_at) },
  { name: "Duration", cell: (run) => (run.duration_ms === null ? "open" : duration(run.duration_ms)), isNumber: true },
  { name: "Attempts", cell: attempts, isNumber: true },
  { name: "Error", cell: errorOf },
];

function attempts(run: RunSummary): Child {
  return run.retries > 0 ? [String(run.attempts), h("small", {}, ` (${run.retries} again)`)] : String(run.attempts);
}

function errorOf(run: RunSummary): Child {
  if (run.error === "" && run.message === "") return "";
  return h("span", { class: "error-text", title: run.message }, run.message || run.error);
}
