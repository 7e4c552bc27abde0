/** A problem for people: what, why, what to do. */

import { h, type Child } from "./element.ts";
import type { Problem } from "./problem.ts";

export function problemBox(problem: Problem, action?: Child, note = ""): HTMLElement {
  const missing = problem.status === 404 && problem.code === "HR6001";
  return h(
    "div",
    { class: "problem", role: "alert" },
    h(
      "p",
      { class: "problem-title" },
      problem.code !== "" && h("code", {}, problem.code),
      missing ? "This service does not have that." : problem.title,
    ),
    problem.detail !== "" && problem.detail !== problem.title && h("p", {}, problem.detail),
    problem.why !== "" && h("p", {}, h("b", {}, "Why "), problem.why),
    problem.advice !== "" && h("p", {}, h("b", {}, "Do "), problem.advice),
    note !== "" && h("p", {}, note),
    action,
  );
}

/** Nothing to show: why, and what one can do. */
export function empty(title: string, ...advice: Child[]): HTMLElement {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), h("p", {}, advice));
}

/** Sentences of the service on what may be missing in a list. */
export function notesOf(notes: readonly string[] | undefined): Child {
  return notes?.length ? h("div", { class: "notes", role: "note" }, notes.map((note) => h("p", {}, note))) : null;
}
