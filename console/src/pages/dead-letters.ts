/** `/dead-letters`: records that could not be dealt with, why, and a way to send them again or to close them. */

import { shown, type Context, type Shown } from "../context.ts";
import { ask, say } from "../dialog.ts";
import { h, replace, type Child } from "../element.ts";
import { parse, print } from "../exact-json.ts";
import { count, counted } from "../format.ts";
import { facts, payloadText, statusChip, time } from "../piece.ts";
import { empty, notesOf, problemBox } from "../problem-box.ts";
import { asProblem, isAbort } from "../problem.ts";
import { readerName } from "../reader.ts";
import { withQuery } from "../route.ts";
import type { DeadLetter, DeadLetterDetail, Listed } from "../shapes.ts";

const LIMIT = "50";
const EVERY_MS = 10_000;
const STATES = ["open", "redriving", "redriven", "resolved"];
const STAGES = ["decode", "match", "start", "emit"];

type Filter = { state: string; stage: string; topic: string };

export function deadLetters(context: Context, query: URLSearchParams): Child {
  context.title("Dead letters");
  const filter: Filter = {
    state: query.get("state") ?? "open",
    stage: query.get("stage") ?? "",
    topic: query.get("topic") ?? "",
  };
  const cursor = query.get("cursor");
  const list: Shown<Listed<DeadLetter>> = shown<Listed<DeadLetter>>(
    context,
    (signal) => context.api.get("dead-letters", { ...filter, limit: LIMIT, cursor }, signal),
    (page) => [
      notesOf(page.notes),
      page.items.length === 0 ? none(filter) : page.items.map((letter) => card(context, letter, () => list.refresh())),
      h(
        "nav",
        { class: "pages", "aria-label": "Pages" },
        cursor && h("a", { class: "button", href: withQuery("dead-letters", filter) }, "First page"),
        page.next && h("a", { class: "button", href: withQuery("dead-letters", { ...filter, cursor: page.next }) }, "Older ones"),
      ),
    ],
    { everyMs: () => EVERY_MS, label: "dead letters" },
  );
  return [h("h1", {}, "Dead letters"), form(context, filter), list.node];
}

function form(context: Context, filter: Filter): HTMLElement {
  const select = (name: string, label: string, choices: readonly [string, string][], chosen: string): [HTMLSelectElement, HTMLElement] => {
    const made = h("select", { id: name, name }, choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
    return [made, h("p", { class: "field" }, h("label", { for: name }, label), made)];
  };
  const named = (all: readonly string[]): [string, string][] => all.map((each) => [each, each]);
  const [state, stateField] = select("state", "State", [...named(STATES), ["all", "any"]], filter.state);
  const [stage, stageField] = select("stage", "Failed at", [["", "any stage"], ...named(STAGES)], filter.stage);
  const topic = h("input", { id: "topic", name: "topic", placeholder: "any", autocomplete: "off" });
  topic.value = filter.topic;
  const made = h(
    "form",
    { class: "filter", role: "search" },
    h(
      "div",
      { class: "fields" },
      stateField,
      stageField,
      h("p", { class: "field" }, h("label", { for: "topic" }, "Topic"), topic),
      h("button", { type: "submit" }, "Apply"),
    ),
  );
  const narrowed = (): void =>
    context.go(withQuery("dead-letters", { state: state.value, stage: stage.value, topic: topic.value.trim() }));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    narrowed();
  });
  for (const field of [state, stage]) field.addEventListener("change", narrowed);
  return made;
}

function none(filter: Filter): Child {
  if (filter.state === "open" && filter.stage === "" && filter.topic === "") {
    return empty("No open dead letter.", "Records that cannot be read, matched, started or sent would be here.");
  }
  return empty("No dead letter is like this.", h("a", { href: "dead-letters" }, "Show the open ones"), ".");
}

function card(context: Context, letter: DeadLetter, refresh: () => Promise<void>): HTMLElement {
  const body = h("div", { "aria-live": "polite" });
  const more = h("details", { id: `letter-${letter.id}` }, h("summary", {}, "The record"), body);
  more.addEventListener("toggle", () => {
    if (more.open && body.childElementCount === 0) void fill(context, letter, body);
  });
  return h(
    "section",
    { class: "card" },
    h("h2", {}, h("span", { class: "id" }, letter.id), " ", statusChip(letter.state)),
    h("p", { class: "error-line" }, letter.code !== "" && [h("code", {}, letter.code), " "], letter.error),
    facts(
      ["Since", time(letter.at)],
      ["Failed at", letter.stage],
      ["Source", letter.source === null ? "an output of a run" : h("code", {}, letter.source)],
      ["Workflow", letter.workflow],
      ["Key", letter.key === null ? null : h("code", {}, letter.key)],
      ["Attempts", String(letter.attempts)],
      ["Size", `${count(letter.bytes)} bytes${letter.kept === "all" ? "" : `, kept: ${letter.kept}`}`],
      ["Sent again", letter.redrives > 0 ? counted(letter.redrives, "time") : null],
      ["Dealt with", letter.handled_at === null ? null : [time(letter.handled_at), letter.handled_by && ` by ${letter.handled_by}`]],
      ["Note", letter.note],
    ),
    more,
    actions(context, letter, refresh),
  );
}

async function fill(context: Context, letter: DeadLetter, body: HTMLElement): Promise<void> {
  replace(body, h("p", { class: "loading" }, "Loading the record …"));
  const path = `dead-letters/${encodeURIComponent(letter.topic)}/${letter.partition}/${letter.offset}`;
  try {
    const found = await context.api.get<DeadLetterDetail>(path, {}, context.signal);
    const headers = (found.headers ?? []).map(([name, value]): [string, Child] => [name, value]);
    replace(body, headers.length > 0 && facts(...headers), valueOf(found));
  } catch (error) {
    if (!isAbort(error)) replace(body, problemBox(asProblem(error)));
  }
}

function valueOf(letter: DeadLetterDetail): Child {
  if (letter.value_base64) return [h("p", { class: "muted" }, "Its value is not text; in base64:"), payloadText(letter.value_base64, "Value")];
  if (letter.value === null || letter.value === undefined) return h("p", { class: "muted" }, "It has no value.");
  return payloadText(readable(letter.value), "Value");
}

/** JSON laid out, anything else as it is. */
function readable(text: string): string {
  try {
    return print(parse(text));
  } catch {
    return text;
  }
}

function actions(context: Context, letter: DeadLetter, refresh: () => Promise<void>): Child {
  if (letter.state === "resolved") return null;
  const wasSent = letter.redrives > 0 || letter.state === "redriven";
  const redrive = (): Promise<boolean> =>
    ask({
      title: "Send this record again?",
      text: [
        h("p", {}, "Its original bytes go to ", h("code", {}, letter.to), "; mend the cause first."),
        wasSent && h("p", {}, h("b", {}, "It was sent again before."), " Once more is a new record: its work may be done twice."),
      ],
      verb: wasSent ? "Send it once more" : "Redrive",
      isDangerous: wasSent,
      act: async () => {
        await done(context, "redrive", { ids: [letter.id], again: wasSent, by: readerName() }, "The record was sent again.");
        void refresh();
      },
    });
  const resolve = (): Promise<boolean> =>
    ask({
      title: "Close this dead letter?",
      text: h("p", {}, "It counts as dealt with, and is deleted in time. It cannot be sent again then."),
      fields: [{ name: "note", label: "Note", help: "For people: what was done about it." }],
      verb: "Resolve",
      isDangerous: true,
      act: async ({ note = "" }) => {
        await done(context, "resolve", { ids: [letter.id], by: readerName(), note }, "The dead letter is resolved.");
        void refresh();
      },
    });
  return h(
    "div",
    { class: "buttons" },
    letter.kept === "all" && h("button", { type: "button", onclick: () => void redrive() }, wasSent ? "Redrive again" : "Redrive"),
    h("button", { type: "button", onclick: () => void resolve() }, "Resolve"),
  );
}

interface Handled {
  selected: number;
  redriven?: number;
  resolved?: number;
}

async function done(context: Context, verb: string, body: unknown, text: string): Promise<void> {
  const answer = await context.api.post<Handled>(`dead-letters/${verb}`, body);
  const isDone = (answer.redriven ?? answer.resolved ?? 0) > 0;
  say(isDone ? text : "Nothing was left to do: somebody else was faster.");
}
