/** `/`: all workflows with their runs by status, and what holds the service back. */

import { shown, type Context } from "../context.ts";
import { h, type Child } from "../element.ts";
import { count, counted, duration, percent } from "../format.ts";
import { byWorkflow, sumOf, totals, type WorkflowCounts } from "../overview-numbers.ts";
import { table, workflowLink, type Column } from "../piece.ts";
import { empty, notesOf } from "../problem-box.ts";
import { runsPath } from "../route.ts";
import type { Listed, Stats, Workflow } from "../shapes.ts";

const EVERY_MS = 5_000;

export function overview(context: Context): Child {
  context.title("Overview");
  const stats = shown<Figures>(
    context,
    async (signal) => {
      const workflows = context.api.get<Listed<Workflow>>("workflows", {}, signal);
      const [figures, { items }] = await Promise.all([context.api.get<Stats>("stats", {}, signal), workflows]);
      return { ...figures, known: items.map(({ namespace, workflow }) => ({ namespace, workflow })) };
    },
    drawn,
    { everyMs: () => EVERY_MS, label: "the figures" },
  );
  context.live.watch({ reset: () => void stats.refresh() }, context.signal);
  return [h("h1", {}, "Overview"), stats.node];
}

interface Figures extends Stats {
  known: { namespace: string; workflow: string }[];
}

function drawn(stats: Figures): Child {
  const rows = byWorkflow(stats.runs, stats.known);
  return [notesOf(stats.notes), stopped(stats), tiles(rows), h("h2", {}, "Workflows"), workflows(rows), flow(stats)];
}

function tiles(rows: readonly WorkflowCounts[]): Child {
  const all = totals(rows);
  const tile = (name: string, statuses: string[], tone: string): Child =>
    h(
      "a",
      { class: "tile", "data-tone": tone, href: runsPath({ status: statuses.join(",") }) },
      h("b", {}, count(sumOf(all, ...statuses))),
      h("span", {}, name),
    );
  return h(
    "div",
    { class: "tiles" },
    tile("running", ["running"], "active"),
    tile("queued", ["queued"], "calm"),
    tile("parked", ["parked"], sumOf(all, "parked") > 0 ? "warn" : "calm"),
    tile("succeeded", ["succeeded"], "good"),
    tile("failed", FAILED, sumOf(all, ...FAILED) > 0 ? "bad" : "calm"),
    tile("cancelled", ["cancelled"], "calm"),
  );
}

const FAILED = ["failed", "timed_out", "compensated"];

function workflows(rows: readonly WorkflowCounts[]): Child {
  if (rows.length === 0) {
    return empty("No workflow.", "Neither the service's app nor the run log has one.");
  }
  const number = (name: string, ...statuses: string[]): Column<WorkflowCounts> => ({
    name,
    isNumber: true,
    cell: (row) => linked(row, statuses),
  });
  return table<WorkflowCounts>(
    [
      { name: "Workflow", cell: (row) => workflowLink(row.namespace, row.workflow) },
      number("Running", "running"),
      number("Queued", "queued"),
      number("Parked", "parked"),
      number("Succeeded", "succeeded"),
      number("Failed", ...FAILED),
      number("Cancelled", "cancelled"),
    ],
    rows,
    "Runs of each workflow by status",
  );
}

function linked(row: WorkflowCounts, statuses: string[]): Child {
  const found = sumOf(row.byStatus, ...statuses);
  if (found === 0) return h("span", { class: "zero" }, "0");
  const place = runsPath({ workflow: `${row.namespace}/${row.workflow}`, status: statuses.join(",") });
  return h("a", { href: place }, count(found));
}

function stopped(stats: Stats): Child {
  if (stats.stopped.length === 0) return null;
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "problem-title" }, `Stopped: ${counted(stats.stopped.length, "partition")}.`),
    h("ul", {}, stats.stopped.map((one) => h("li", {}, h("code", {}, `${one.topic}/${one.partition}`), ` ${one.reason}`))),
    h("p", {}, "All others go on. ", h("code", {}, "headrace doctor"), " says more."),
  );
}

function flow(stats: Stats): Child {
  const lag = stats.lag;
  return h(
    "div",
    { class: "columns" },
    h(
      "section",
      {},
      h("h2", {}, "Lag"),
      lag.length === 0
        ? empty("No source topic is read here.", "This is about the process that answers.")
        : table<Stats["lag"][number]>(
            [
              { name: "Topic", cell: (row) => h("code", {}, row.topic) },
              { name: "Records", isNumber: true, cell: (row) => count(row.records) },
              { name: "Behind by", isNumber: true, cell: (row) => (row.seconds === null ? "–" : duration(row.seconds * 1000)) },
            ],
            lag,
            "Records not yet read, by topic",
          ),
    ),
    h("section", {}, h("h2", {}, "Bottleneck"), bottleneck(stats)),
  );
}

function bottleneck(stats: Stats): Child {
  const found = stats.bottleneck;
  if (found === null) return empty("None.", "Nothing limits this process at its present load.");
  return h(
    "p",
    {},
    h("code", {}, found.resource),
    ` is used to ${percent(found.utilization)}.`,
    typeof found.relief === "string" && found.relief !== "" && ` ${found.relief}`,
    typeof found.relief === "number" && ` Without it there would be room for ${found.relief.toFixed(1)} times the load.`,
  );
}
