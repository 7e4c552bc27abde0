/** `/runs`: runs, newest first, narrowed and in pages; the first page is live. */

import { shown, type Context } from "../context.ts";
import { h, replace, type Child } from "../element.ts";
import { words } from "../format.ts";
import { runColumns, table } from "../piece.ts";
import { empty, notesOf } from "../problem-box.ts";
import { runsPath } from "../route.ts";
import { merged, sinceOf, type RunQuery } from "../run-list.ts";
import { STATUSES, type Listed, type RunSummary } from "../shapes.ts";

const LIMIT = 50;
const REMEMBERED = 500;
const SINCE: readonly [string, string][] = [
  ["", "any time"],
  ["15m", "the last 15 minutes"],
  ["1h", "the last hour"],
  ["24h", "the last day"],
  ["7d", "the last week"],
];

export function runs(context: Context, query: URLSearchParams): Child {
  context.title("Runs");
  const cursor = query.get("cursor") ?? "";
  const filter = {
    status: query.get("status") ?? "",
    workflow: query.get("workflow") ?? "",
    key: query.get("key") ?? "",
    since: query.get("since") ?? "",
  };
  const sinceMs = sinceOf(filter.since);
  const wanted: RunQuery = {
    statuses: new Set(filter.status.split(",").filter((status) => status !== "")),
    workflow: filter.workflow,
    key: filter.key,
    sinceMs: sinceMs === null ? null : Date.now() - sinceMs,
  };
  const isNewUntil = Date.now() + 10_000;
  let page: Listed<RunSummary> | null = null;
  // said by the stream lately: a list may be answered from a history that has not read so far
  const changed = new Map<string, RunSummary>();
  const list = shown<Listed<RunSummary>>(
    context,
    async (signal) => {
      page = await context.api.get<Listed<RunSummary>>("runs", { ...filter, limit: String(LIMIT), cursor }, signal);
      for (const run of changed.values()) page = withRun(page, run);
      return page;
    },
    (value) => drawn(value, filter, cursor !== "", Object.values(filter).some((one) => one !== "")),
    // the stream says what happens from now on: what happened a moment ago the list may not have read yet
    { everyMs: () => (context.live.state !== "live" ? 5_000 : Date.now() < isNewUntil ? 2_000 : 15_000), label: "runs" },
  );

  function withRun(value: Listed<RunSummary>, run: RunSummary): Listed<RunSummary> {
    const items = merged(value.items, run, wanted, { limit: LIMIT, isFirst: cursor === "" });
    return items === value.items ? value : { ...value, items: [...items] };
  }

  // many runs in one moment are drawn once
  let isDue = false;
  function redraw(): void {
    isDue = false;
    if (page !== null && !context.signal.aborted) list.show(page);
  }
  context.live.watch(
    {
      run: (run) => {
        changed.delete(run.id);
        changed.set(run.id, run);
        const oldest = changed.keys().next();
        if (changed.size > REMEMBERED && !oldest.done) changed.delete(oldest.value);
        if (page === null) return;
        const next = withRun(page, run);
        if (next === page) return;
        page = next;
        if (!isDue) setTimeout(redraw, 250);
        isDue = true;
      },
      reset: () => void list.refresh(),
      state: (state) => {
        if (state === "polling" || state === "lost") void list.refresh();
      },
    },
    context.signal,
  );
  return [h("h1", {}, "Runs"), form(context, filter), list.node];
}

type Filter = { status: string; workflow: string; key: string; since: string };

function form(context: Context, filter: Filter): HTMLElement {
  const chosen = new Set(filter.status.split(","));
  const boxes = STATUSES.map((status) => {
    const box = h("input", { type: "checkbox", name: "status", value: status, checked: chosen.has(status), id: `status-${status}` });
    return { box, node: h("label", { class: "chip", "data-status": status }, box, words(status)) };
  });
  const workflow = h("input", { id: "workflow", name: "workflow", placeholder: "any", autocomplete: "off", list: "workflows" });
  workflow.value = filter.workflow;
  const names = h("datalist", { id: "workflows" });
  const key = h("input", { id: "key", name: "key", placeholder: "any", autocomplete: "off" });
  key.value = filter.key;
  const run = h("input", { id: "run", name: "run", placeholder: "go to this run", autocomplete: "off" });
  const times = SINCE.some(([value]) => value === filter.since) ? SINCE : [...SINCE, [filter.since, filter.since] as const];
  const since = h(
    "select",
    { id: "since", name: "since" },
    times.map(([value, name]) => h("option", { value, selected: value === filter.since }, name)),
  );
  const narrowed = (): void => {
    if (run.value.trim() !== "") {
      context.go(`runs/${encodeURIComponent(run.value.trim())}`);
      return;
    }
    const statuses = boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
    const place = runsPath({
      status: statuses.join(","),
      workflow: workflow.value.trim(),
      key: key.value.trim(),
      since: since.value,
    });
    context.go(place);
  };
  const made = h(
    "form",
    { class: "filter", role: "search" },
    h("fieldset", {}, h("legend", {}, "Status"), boxes.map(({ node }) => node)),
    h(
      "div",
      { class: "fields" },
      h("p", { class: "field" }, h("label", { for: "workflow" }, "Workflow"), workflow, names),
      h("p", { class: "field" }, h("label", { for: "key" }, "Key"), key),
      h("p", { class: "field" }, h("label", { for: "since" }, "Started within"), since),
      h("p", { class: "field" }, h("label", { for: "run" }, "Run id"), run),
      h("button", { type: "submit" }, "Apply"),
    ),
  );
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    narrowed();
  });
  for (const field of [...boxes.map(({ box }) => box), since]) field.addEventListener("change", narrowed);
  workflow.addEventListener("focus", () => void offer(context, names), { once: true });
  return made;
}

async function offer(context: Context, names: HTMLElement): Promise<void> {
  try {
    const { items } = await context.api.get<Listed<{ namespace: string; workflow: string }>>("workflows", {}, context.signal);
    const full = items.map((one) => (one.namespace === "default" ? one.workflow : `${one.namespace}/${one.workflow}`));
    replace(names, [...new Set(full)].sort().map((value) => h("option", { value })));
  } catch {
    // without suggestions one types the name
  }
}

function drawn(page: Listed<RunSummary>, filter: Filter, isLater: boolean, isNarrowed: boolean): Child {
  const first = isLater && h("a", { class: "button", href: runsPath(filter) }, "First page");
  const next = page.next ? h("a", { class: "button", href: runsPath({ ...filter, cursor: page.next }), rel: "next" }, "Older runs") : null;
  const rows =
    page.items.length > 0
      ? table(runColumns, page.items, "Runs, newest first")
      : isLater
        ? empty("There are no older runs.")
        : isNarrowed
          ? empty("No run is like this.", "Ask for less: ", h("a", { href: "runs" }, "all runs"), ".")
          : empty(
              "No run yet.",
              "Publish an event that a trigger matches: ",
              h("code", {}, "headrace event publish TOPIC --type TYPE --data JSON"),
              ".",
            );
  return [notesOf(page.notes), rows, h("nav", { class: "pages", "aria-label": "Pages" }, first, next)];
}
