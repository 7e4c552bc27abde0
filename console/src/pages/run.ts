/** `/runs/<id>`: one run: what it is, what it did and when, and what may be done with it. */

import { shown, type Context, type Shown } from "../context.ts";
import { ask, say, type Field } from "../dialog.ts";
import { h, replace, type Child } from "../element.ts";
import { counted, duration, words } from "../format.ts";
import { gantt } from "../gantt.ts";
import { copyButton, facts, payload, runLink, statusChip, table, time, workflowLink, type Column } from "../piece.ts";
import { notesOf } from "../problem-box.ts";
import { Problem } from "../problem.ts";
import { runsPath } from "../route.ts";
import { OPEN, type ChildRun, type HistoryEntry, type Listed, type OpenStep, type RunDetail } from "../shapes.ts";
import { timelineOf } from "../timeline.ts";
import { decide, type Decision } from "./approvals.ts";
import { traceAddress } from "../trace-link.ts";

const OPEN_EVERY_MS = 2_000;
const ENTRIES_A_PAGE = 200;
const ENTRIES_AT_ONCE = 2_000; // more are asked for by the reader

const NEW_FOR_MS = 30_000;
const SETTLES_MS = 10_000; // a page is asked for again, after it was opened or its run has changed

/** When runs were started from this page. */
export const started = new Map<string, number>();

interface Whole {
  run: RunDetail;
  entries: HistoryEntry[];
  notes: string[];
  /** Where the history goes on; "" if that is all. */
  more: string;
}

export function run(context: Context, id: string): Child {
  context.title(`Run ${id}`);
  let wanted = ENTRIES_AT_ONCE;
  // what belongs to an end may follow it: what was sent, whether it can be retried
  let told = Date.now() + SETTLES_MS;
  const isNew = (): boolean => Date.now() < told;
  const path = `runs/${encodeURIComponent(id)}`;
  const page: Shown<Whole> = shown<Whole>(
    context,
    async (signal) => {
      const detail = await context.api.get<RunDetail>(path, {}, signal).catch((error: unknown) => {
        throw notYet(id, error);
      });
      return { run: detail, ...(await historyOf(context, path, wanted, signal)) };
    },
    (whole) =>
      drawn(context, whole, {
        refresh: () => page.refresh(),
        more: () => {
          wanted += ENTRIES_AT_ONCE;
          return page.refresh();
        },
      }),
    { everyMs: ({ run: { status } }) => (OPEN.has(status) || isNew() ? OPEN_EVERY_MS : null), label: "the run" },
  );
  context.live.watch(
    {
      run: (summary) => {
        if (summary.id !== id) return;
        told = Date.now() + SETTLES_MS;
        void page.refresh();
      },
      reset: () => void page.refresh(),
    },
    context.signal,
  );
  return page.node;
}

/** A run that was started here a moment ago may not be in the history yet: that is looked for again. */
function notYet(id: string, error: unknown): unknown {
  const isNew = Date.now() - (started.get(id) ?? 0) < NEW_FOR_MS;
  if (!isNew || !(error instanceof Problem) || error.status !== 404) return error;
  return new Problem(503, "Not there yet", "The run was started; its history follows in a moment.", "", "", "", 1);
}

async function historyOf(
  context: Context,
  path: string,
  wanted: number,
  signal: AbortSignal,
): Promise<Omit<Whole, "run">> {
  const entries: HistoryEntry[] = [];
  let notes: string[] = [];
  let cursor: string | null = null;
  do {
    const query = { limit: String(ENTRIES_A_PAGE), cursor };
    const page: Listed<HistoryEntry> = await context.api.get(`${path}/history`, query, signal);
    entries.push(...page.items);
    notes = page.notes ?? notes;
    cursor = page.next ?? null;
  } while (cursor !== null && entries.length < wanted);
  return { entries, notes, more: cursor ?? "" };
}

interface Controls {
  refresh(): Promise<void>;
  more(): Promise<void>;
}

function drawn(context: Context, whole: Whole, controls: Controls): Child {
  const { run: detail, entries } = whole;
  return [
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Run ", h("span", { class: "id" }, detail.id), " ", copyButton(detail.id)),
      h("p", {}, statusChip(detail.status, detail.parked), " of ", workflowLink(detail.namespace, detail.workflow)),
      actions(context, detail, entries, controls),
    ),
    failure(detail),
    notesOf(whole.notes),
    about(context, detail),
    waiting(context, detail, controls),
    h("h2", {}, "Timeline"),
    gantt(timelineOf(detail, entries, Date.now())),
    h(
      "div",
      { class: "columns" },
      h("section", {}, h("h2", {}, "Input"), payload(detail.input, "The run's input")),
      h(
        "section",
        {},
        h("h2", {}, "Result"),
        detail.ended_at === null
          ? h("p", { class: "muted" }, "It has not ended.")
          : detail.status === "succeeded"
            ? payload(detail.result, "The run's result")
            : h("p", { class: "muted" }, `None: it ended as ${words(detail.status)}.`),
      ),
    ),
    relatives(detail),
    h("h2", {}, "History"),
    history(entries),
    whole.more !== "" &&
      h("button", { type: "button", onclick: () => void controls.more() }, `Show more than ${entries.length.toLocaleString()} records`),
  ];
}

function failure(detail: RunDetail): Child {
  if (detail.status === "parked") {
    return h(
      "div",
      { class: "problem", role: "note" },
      h("p", { class: "problem-title" }, `Parked: ${words(detail.parked)}`),
      detail.parked_step !== "" && h("p", {}, "At ", h("code", {}, detail.parked_step), "."),
      detail.expected !== "" && h("p", {}, h("b", {}, "The log has "), detail.expected),
      detail.found !== "" && h("p", {}, h("b", {}, "The code did "), detail.found),
      h("p", {}, h("b", {}, "Do "), "Mend the code or the cause, then resume the run; or cancel it."),
    );
  }
  if (detail.error === "" && detail.message === "") return null;
  return h(
    "div",
    { class: "problem", role: "note" },
    h("p", { class: "problem-title" }, detail.error !== "" && h("code", {}, detail.error), words(detail.status)),
    detail.message !== "" && h("p", {}, detail.message),
    detail.failed_step !== "" && h("p", {}, "At ", h("code", {}, detail.failed_step), "."),
  );
}

function about(context: Context, detail: RunDetail): Child {
  const retry = detail.retry !== "" && detail.retry !== detail.id ? runLink(detail.retry) : null;
  return facts(
    ["Started", time(detail.started_at)],
    ["Ended", detail.ended_at === null ? null : time(detail.ended_at)],
    ["Duration", detail.duration_ms === null ? "open" : duration(detail.duration_ms)],
    ["Version", detail.version],
    ["Key", detail.key === null ? null : h("a", { href: runsPath({ key: detail.key }) }, detail.key)],
    ["Started by", startedBy(detail)],
    ["Attempts", detail.retries > 0 ? `${detail.attempts}, ${detail.retries} of them again` : String(detail.attempts)],
    ["Joined", detail.joined > 0 ? `${counted(detail.joined, "more event")} with its key` : null],
    ["Undone", detail.undone > 0 || detail.undo_failed > 0 ? undone(detail) : null],
    ["Retry of", detail.retry_of === "" ? null : runLink(detail.retry_of)],
    ["Retried as", retry],
    ["Trace", trace(context, detail.trace_id)],
    ["Trace of the event", trace(context, detail.producer_trace_id)],
  );
}

function startedBy(detail: RunDetail): Child {
  if (detail.source === null) return words(detail.trigger);
  return [`${words(detail.trigger)} `, h("code", { title: "topic/partition/offset of the source record" }, detail.source)];
}

function undone({ undone: over, undo_failed: failed }: RunDetail): string {
  return failed > 0 ? `${counted(over, "task")}; ${failed} could not be undone` : counted(over, "task");
}

function trace(context: Context, id: string): Child {
  if (!id) return null;
  const address = traceAddress(context.about()?.console?.trace_url, id);
  const said = h("code", {}, id);
  return address === "" ? said : h("a", { href: address, rel: "noreferrer", target: "_blank" }, said);
}

function waiting(context: Context, detail: RunDetail, controls: Controls): Child {
  if (detail.waiting.length === 0) return null;
  const columns: Column<OpenStep>[] = [
    { name: "Step", cell: (one) => h("code", {}, one.step) },
    { name: "Waits for", cell: (one) => waitsFor(context, detail, one, controls) },
    { name: "Until", cell: (one) => (one.until ? [time(one.until), " (", time(one.until, { asRelative: true }), ")"] : "–") },
  ];
  return [h("h2", {}, "Waits for"), table(columns, detail.waiting, "What the run waits for")];
}

const CHILD = "child run ";

function waitsFor(context: Context, detail: RunDetail, one: OpenStep, controls: Controls): Child {
  if (one.waits_for.startsWith(CHILD)) return [CHILD, runLink(one.waits_for.slice(CHILD.length))];
  if (!one.approval) return one.waits_for;
  const asked = { id: one.approval, run: detail.id, step: one.step, title: one.title ?? "", roles: one.roles ?? [] };
  const button = (decision: Decision, name: string): HTMLElement =>
    h(
      "button",
      { type: "button", class: "small", onclick: () => void decide(context, asked, decision, controls.refresh) },
      name,
    );
  return [
    `approval: ${asked.title} `,
    asked.roles.length > 0 && h("small", {}, `by ${asked.roles.join(", ")} `),
    h("span", { class: "buttons" }, button("approve", "Approve"), button("reject", "Reject")),
  ];
}

function relatives(detail: RunDetail): Child {
  const children = detail.children ?? [];
  const columns: Column<ChildRun>[] = [
    { name: "Run", cell: (one) => runLink(one.run) },
    { name: "Workflow", cell: (one) => one.workflow },
    { name: "Step", cell: (one) => h("code", {}, one.step) },
    { name: "Kind", cell: (one) => (one.awaited ? "awaited" : "detached") },
    { name: "Status", cell: (one) => (one.status ? statusChip(one.status) : "–") },
  ];
  return [
    detail.parent && [h("h2", {}, "Parent"), h("p", {}, runLink(detail.parent), " at ", h("code", {}, detail.parent_step))],
    children.length > 0 && [h("h2", {}, "Child runs"), table(columns, children, "Runs that this one started")],
  ];
}

// --- history -----------------------------------------------------------------------------------------------------------

const ROWS_AT_ONCE = 200;

function history(entries: readonly HistoryEntry[]): Child {
  const columns: Column<HistoryEntry>[] = [
    { name: "Offset", cell: (entry) => String(entry.offset), isNumber: true },
    { name: "Time", cell: (entry) => time(entry.time, { isExact: true }) },
    { name: "Record", cell: recordOf },
    { name: "Step", cell: (entry) => (entry.step ? h("code", {}, entry.step) : "") },
    { name: "Attempt", cell: (entry) => (entry.attempt === null ? "" : String(entry.attempt)), isNumber: true },
    { name: "Took", cell: (entry) => (entry.duration_ms === null ? "" : duration(entry.duration_ms)), isNumber: true },
    { name: "Says", cell: said },
  ];
  const box = h("div", {});
  let shownRows = ROWS_AT_ONCE;
  const more = h("button", { type: "button", class: "quiet" });
  const draw = (): void => {
    replace(box, table(columns, entries.slice(0, shownRows), "All records of this run"));
    more.textContent = `Show ${Math.min(ROWS_AT_ONCE, entries.length - shownRows)} more records`;
    more.hidden = shownRows >= entries.length;
  };
  more.addEventListener("click", () => {
    shownRows += ROWS_AT_ONCE;
    draw();
  });
  draw();
  return [box, more];
}

function recordOf(entry: HistoryEntry): Child {
  const effect = entry.effect === "accepted" ? null : h("small", { class: "effect" }, ` ${entry.reason ?? entry.effect}`);
  if (entry.record === null || entry.record === undefined) return [entry.kind, effect];
  const body = h("div", {});
  const details = h("details", { id: `record-${entry.offset}-${entry.kind}` }, h("summary", {}, entry.kind, effect), body);
  const fill = (): void => {
    if (details.open && body.childElementCount === 0) body.append(payload(entry.record, `Record at offset ${entry.offset}`));
  };
  details.addEventListener("toggle", fill);
  return details;
}

function said(entry: HistoryEntry): Child {
  const error = [entry.cause, entry.error].filter((part) => part).join(": ");
  const again = entry.retry_after_ms === null ? "" : `again in ${duration(entry.retry_after_ms)}`;
  return [error, entry.message, entry.detail, again].filter((part) => part).join("; ");
}

// --- actions -----------------------------------------------------------------------------------------------------------

function actions(context: Context, detail: RunDetail, entries: readonly HistoryEntry[], controls: Controls): Child {
  const path = `runs/${encodeURIComponent(detail.id)}`;
  const isOpen = OPEN.has(detail.status);
  const does = (verb: string, done: string) => async (values: Record<string, string>): Promise<void> => {
    const body = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
    const answer = await context.api.post<{ id?: string; retry_of?: string }>(`${path}/${verb}`, body);
    if (answer.retry_of && answer.id) {
      started.set(answer.id, Date.now());
      say(done, runLink(answer.id));
    } else {
      say(done);
    }
    void controls.refresh();
  };
  const button = (name: string, question: () => Parameters<typeof ask>[0], tone = ""): HTMLElement =>
    h("button", { type: "button", class: tone, onclick: () => void ask(question()) }, name);
  const buttons: Child[] = [];
  if (detail.status === "parked") {
    buttons.push(
      button("Resume", () => ({
        title: "Resume this run?",
        text: h("p", {}, "It goes on from where it was parked. Code that still does not fit the log parks it again."),
        verb: "Resume",
        act: does("resume", "The run was resumed."),
      })),
    );
  }
  if (detail.retriable) {
    buttons.push(
      button("Retry", () => ({
        title: "Retry this run?",
        text: h("p", {}, "A new run begins in its place. What had finished is copied; the rest runs with the same idempotency keys."),
        fields: [fromField(entries)],
        verb: "Retry",
        act: does("retry", "The run is retried as"),
      })),
      button("Dismiss", () => ({
        title: "Dismiss this run?",
        text: h("p", {}, "What is kept of it for a retry is forgotten: it can be retried no more. It stays in the history."),
        verb: "Dismiss",
        isDangerous: true,
        act: does("dismiss", "The run was dismissed."),
      })),
    );
  }
  if (isOpen) {
    buttons.push(
      button(
        "Cancel run",
        () => ({
          title: "Cancel this run?",
          text: h("p", {}, "Open steps are cancelled, finished tasks undone. This cannot be taken back."),
          fields: [{ name: "reason", label: "Reason", help: "For people; kept in the run log." }],
          verb: "Cancel run",
          isDangerous: true,
          act: cancelled(does("cancel", "The run was cancelled.")),
        }),
        "danger",
      ),
    );
  }
  return buttons.length > 0 && h("div", { class: "buttons" }, buttons);
}

/** The command was taken, but the run has not ended yet: that is not a failure. */
function cancelled(act: (values: Record<string, string>) => Promise<void>): (values: Record<string, string>) => Promise<void> {
  return async (values) => {
    try {
      await act(values);
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== "HR4103") throw error;
      say("The run is being cancelled; it has not ended yet.");
    }
  };
}

function fromField(entries: readonly HistoryEntry[]): Field {
  const finished = entries.filter((entry) => entry.kind === "attempt.succeeded" && entry.step !== null);
  const choices = [...new Set(finished.map((entry) => entry.step ?? ""))];
  const help = "Copy only what had finished before this task had. Empty: copy all that had finished.";
  return { name: "from", label: "From task", choices, help };
}
