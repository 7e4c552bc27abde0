/** `/workflows/<name>`: what a workflow is, its runs, and a way to start one. */

import { shown, type Context } from "../context.ts";
import { ask } from "../dialog.ts";
import { h, type Child } from "../element.ts";
import { parse } from "../exact-json.ts";
import { count, duration, words } from "../format.ts";
import { facts, runColumns, statusChip, table } from "../piece.ts";
import { empty, notesOf } from "../problem-box.ts";
import { runPath, runsPath } from "../route.ts";
import { started } from "./run.ts";
import { Problem } from "../problem.ts";
import { STATUSES, type HandlerFacts, type Listed, type RunSummary, type Trigger, type Workflow } from "../shapes.ts";

const EVERY_MS = 10_000;

export function workflow(context: Context, namespace: string, name: string): Child {
  const full = namespace === "default" ? name : `${namespace}/${name}`;
  context.title(full);
  const path = `workflows/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const about = shown(
    context,
    (signal) => context.api.get<Workflow & { notes?: string[] }>(path, {}, signal),
    (found) => [notesOf(found.notes), described(found)],
    { everyMs: () => EVERY_MS, label: "the workflow" },
  );
  const filter = { workflow: `${namespace}/${name}` };
  const latest = shown(
    context,
    (signal) => context.api.get<Listed<RunSummary>>("runs", { ...filter, limit: "20" }, signal),
    (page) =>
      page.items.length === 0
        ? empty("No run yet.", "Start one above, or publish an event that a trigger matches.")
        : table(runColumns, page.items, "Newest runs"),
    { everyMs: () => EVERY_MS, label: "its runs" },
  );
  return [
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Workflow ", h("span", { class: "id" }, full)),
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", onclick: () => void start(context, namespace, name) }, "Start a run"),
      ),
    ),
    about.node,
    h("h2", {}, "Newest runs"),
    latest.node,
    h("p", {}, h("a", { href: runsPath(filter) }, "All its runs")),
  ];
}

function described(found: Workflow): Child {
  const runs = found.runs ?? {};
  const versions = found.versions ?? [found.version];
  const timeout = found.timeout_ms;
  return [
    found.description ? h("p", { class: "prose" }, found.description) : null,
    facts(
      ["Version", versions.length > 1 ? `${found.version} (seen: ${versions.join(", ")})` : found.version],
      ["Key", found.key ? `one open run a key; on conflict: ${words(found.on_conflict ?? "")}` : null],
      ["Time limit", timeout === null || timeout === undefined ? null : duration(timeout)],
      ["Sends to", found.emits?.length ? found.emits.map((topic, at) => [at > 0 && ", ", h("code", {}, topic)]) : null],
      ["Runs", runCounts(found, runs)],
    ),
    h("h2", {}, "Triggers"),
    found.triggers?.length
      ? h("ul", { class: "plain" }, found.triggers.map((trigger) => h("li", {}, triggerWords(trigger))))
      : h("p", { class: "muted" }, "None known here: it is started by people, programs or other runs."),
    found.handlers?.length
      ? h("details", { id: "handlers" }, h("summary", {}, "Handlers of the app"), handlers(found.handlers))
      : null,
  ];
}

function runCounts(found: Workflow, runs: Record<string, number>): Child {
  const known = STATUSES.filter((status) => (runs[status] ?? 0) > 0);
  if (known.length === 0) return null;
  const workflow = `${found.namespace}/${found.workflow}`;
  return known.map((status) => [
    h("a", { href: runsPath({ workflow, status }), class: "count" }, statusChip(status), ` ${count(runs[status])}`),
    " ",
  ]);
}

function triggerWords(trigger: Trigger): Child {
  if (trigger.kind !== undefined && trigger.kind !== "event") return [`${words(trigger.kind)} `, h("code", {}, trigger.words ?? "")];
  const attributes = Object.entries(trigger.attributes ?? {}).map(([name, value]) => `${name}=${value}`);
  return [
    "event ",
    h("code", {}, trigger.type ?? "of any type"),
    " on ",
    h("code", {}, trigger.topic ?? ""),
    attributes.length > 0 && ` with ${attributes.join(", ")}`,
    trigger.filter && ", if a filter of its code says so",
  ];
}

function handlers(found: readonly HandlerFacts[]): Child {
  const names = [...new Set(found.flatMap((one) => Object.keys(one)))].filter((name) => name !== "name");
  const cell = (one: HandlerFacts, name: string): Child => {
    const value = one[name];
    if (value === null || value === undefined || value === "" || value === false) return "";
    if (name.endsWith("_ms") && typeof value === "number") return duration(value);
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  };
  const heading = (name: string): string => words(name.replace(/_ms$/, ""));
  return table<HandlerFacts>(
    [
      { name: "handler", cell: (one) => h("code", {}, one.name) },
      ...names.map((name) => ({ name: heading(name), cell: (one: HandlerFacts) => cell(one, name) })),
    ],
    found,
    "Handlers of the app",
  );
}

async function start(context: Context, namespace: string, name: string): Promise<void> {
  const identity = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`; // sent twice, it starts one run
  await ask({
    title: `Start ${name}`,
    text: h("p", {}, "Its input as JSON."),
    fields: [
      { name: "input", label: "Input", kind: "lines", value: "{}", maxLength: 1_000_000 },
      { name: "key", label: "Key", help: "Empty: what the workflow makes of the input." },
    ],
    verb: "Start",
    act: async ({ input = "", key = "" }) => {
      try {
        parse(input);
      } catch (error) {
        throw new Problem(400, "The input is not JSON.", String(error), "", "", "Mend it; text needs quotes.");
      }
      const said = { namespace, workflow: name, ...(key === "" ? {} : { key }) };
      // the input goes as it was typed: numbers keep their digits
      const body = `${JSON.stringify(said).slice(0, -1)},"input":${input}}`;
      const { id } = await context.api.postText<{ id: string }>("runs", body, { "Idempotency-Key": identity });
      started.set(id, Date.now());
      context.go(runPath(id));
    },
  });
}
