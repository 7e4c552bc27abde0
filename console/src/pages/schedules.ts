/** `/schedules`: what starts by the clock, when next, and a way to stop or hasten it. */

import { shown, type Context, type Shown } from "../context.ts";
import { ask, say } from "../dialog.ts";
import { h, type Child } from "../element.ts";
import { count, duration } from "../format.ts";
import { runLink, statusChip, table, time, workflowLink } from "../piece.ts";
import { empty, notesOf } from "../problem-box.ts";
import type { Listed, Schedule } from "../shapes.ts";

const EVERY_MS = 5_000;

export function schedules(context: Context): Child {
  context.title("Schedules");
  const list: Shown<Listed<Schedule>> = shown<Listed<Schedule>>(
    context,
    (signal) => context.api.get<Listed<Schedule>>("schedules", {}, signal),
    (page) => [
      notesOf(page.notes),
      page.items.length === 0 ? none() : drawn(context, page.items, () => list.refresh()),
    ],
    { everyMs: () => EVERY_MS, label: "schedules" },
  );
  return [h("h1", {}, "Schedules"), list.node];
}

function none(): Child {
  return empty(
    "No schedule.",
    "A workflow is started by the clock with ",
    h("code", {}, '@workflow(on=[Schedule("0 9 * * MON-FRI")])'),
    ".",
  );
}

function drawn(context: Context, items: readonly Schedule[], refresh: () => Promise<void>): Child {
  return table<Schedule>(
    [
      { name: "Workflow", cell: (one) => workflowLink(one.namespace, one.workflow) },
      { name: "When", cell: when },
      { name: "Status", cell: (one) => statusChip(one.status) },
      { name: "Next", cell: next },
      { name: "Last", cell: (one) => [time(one.last_slot), one.last_run ? [" ", runLink(one.last_run)] : null] },
      { name: "Fired", cell: (one) => count(one.fired), isNumber: true },
      { name: "Missed", cell: (one) => count(one.missed), isNumber: true },
      { name: "Skipped", cell: (one) => count(one.skipped), isNumber: true },
      { name: "Actions", cell: (one) => actions(context, one, refresh) },
    ],
    items,
    "Schedules",
  );
}

function when(one: Schedule): Child {
  const spec = one.cron === null ? `every ${duration(one.every_ms)}` : one.cron;
  const rules = [`misfire ${one.misfire}`, `overlap ${one.overlap}`];
  if (one.start) rules.push(`from ${one.start}`);
  if (one.end) rules.push(`until ${one.end}`);
  return [h("code", {}, spec), ` ${one.cron === null ? "" : one.timezone}`, h("br"), h("small", {}, rules.join(", "))];
}

function next(one: Schedule): Child {
  if (one.status === "paused") return ["paused ", time(one.paused_at)];
  if (!one.next_slot) return "–";
  return [time(one.next_slot), " ", h("small", {}, "(", time(one.next_slot, { asRelative: true }), ")")];
}

function actions(context: Context, one: Schedule, refresh: () => Promise<void>): Child {
  const name = `${one.workflow}: ${one.cron ?? `every ${duration(one.every_ms)}`}`;
  const does = (verb: string, done: string) => async (): Promise<void> => {
    const answer = await context.api.post<{ run?: string } | null>(`schedules/${encodeURIComponent(one.id)}/${verb}`, {});
    say(done, answer?.run ? runLink(answer.run) : undefined);
    void refresh();
  };
  const button = (text: string, question: Parameters<typeof ask>[0]): HTMLElement =>
    h("button", { type: "button", class: "small", onclick: () => void ask(question) }, text);
  const isPaused = one.status === "paused";
  return h(
    "span",
    { class: "buttons" },
    button("Start now", {
      title: "Start a run now?",
      text: h("p", {}, `${name}: one run beside those of the clock.`),
      verb: "Start now",
      act: does("trigger", "Started."),
    }),
    isPaused
      ? button("Resume", {
          title: "Resume this schedule?",
          text: h("p", {}, `${name} starts runs again; what was missed meanwhile is treated as it says: ${one.misfire}.`),
          verb: "Resume",
          act: does("resume", "The schedule goes on."),
        })
      : button("Pause", {
          title: "Pause this schedule?",
          text: h("p", {}, `${name} starts no run until it is resumed.`),
          verb: "Pause",
          act: does("pause", "The schedule is paused."),
        }),
  );
}
