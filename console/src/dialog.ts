/** Questions before something is done. */

import { h, replace, type Child } from "./element.ts";
import { asProblem } from "./problem.ts";
import { problemBox } from "./problem-box.ts";

export interface Field {
  name: string;
  label: string;
  value?: string;
  kind?: "text" | "password" | "lines" | "check";
  required?: boolean;
  /** What may be chosen; anything else may be typed. */
  choices?: readonly string[];
  help?: string;
  maxLength?: number;
}

export interface Question {
  title: string;
  text: Child;
  fields?: readonly Field[];
  /** The button that does it. */
  verb: string;
  isDangerous?: boolean;
  /** Do it; what it throws is shown, and the question stays open. */
  act(values: Record<string, string>): Promise<void>;
}

let counter = 0;

/** True once it is done, false if the reader thinks better of it. */
export function ask(question: Question): Promise<boolean> {
  return new Promise((resolve) => {
    const id = `question-${(counter += 1)}`;
    const trouble = h("div", { "aria-live": "polite" });
    const fields = (question.fields ?? []).map((field) => fieldOf(field, `${id}-${field.name}`));
    const act = h(
      "button",
      { type: "submit", class: question.isDangerous ? "danger" : "primary" },
      question.verb,
    );
    const leave = h("button", { type: "button" }, "Not now");
    const form = h(
      "form",
      {},
      h("h2", { id }, question.title),
      h("div", {}, question.text),
      fields.map((field) => field.node),
      trouble,
      h("div", { class: "buttons" }, leave, act),
    );
    const dialog = h("dialog", { "aria-labelledby": id }, form);
    let isDone = false;
    leave.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (act.disabled) return;
      act.disabled = true;
      replace(trouble);
      const values = Object.fromEntries(fields.map((field) => [field.name, field.value()]));
      question.act(values).then(
        () => {
          isDone = true;
          dialog.close();
        },
        (error: unknown) => {
          act.disabled = false;
          replace(trouble, problemBox(asProblem(error)));
        },
      );
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(isDone);
    });
    document.body.append(dialog);
    dialog.showModal();
    (fields[0]?.focus ?? (() => leave.focus()))();
  });
}

interface Made {
  name: string;
  node: HTMLElement;
  value(): string;
  focus(): void;
}

function fieldOf(field: Field, id: string): Made {
  const { name, label } = field;
  const help = field.help === undefined ? null : h("small", { id: `${id}-help` }, field.help);
  const described = { "aria-describedby": help === null ? undefined : `${id}-help` };
  const common = { id, name, required: field.required ?? false, maxlength: String(field.maxLength ?? 10_000), ...described };
  if (field.kind === "check") {
    const box = h("input", { type: "checkbox", id, name, checked: field.value === "yes", ...described });
    const node = h("p", { class: "field check" }, box, h("label", { for: id }, label), help);
    return { name, node, value: () => (box.checked ? "yes" : ""), focus: () => box.focus() };
  }
  if (field.kind === "lines") {
    const area = h("textarea", { ...common, rows: "6", spellcheck: "false" });
    area.value = field.value ?? "";
    const node = h("p", { class: "field" }, h("label", { for: id }, label), area, help);
    return { name, node, value: () => area.value, focus: () => area.focus() };
  }
  const list = field.choices?.length ? h("datalist", { id: `${id}-list` }, field.choices.map(option)) : null;
  const input = h("input", { ...common, type: field.kind ?? "text", autocomplete: "off" });
  if (list !== null) input.setAttribute("list", `${id}-list`);
  input.value = field.value ?? "";
  const node = h("p", { class: "field" }, h("label", { for: id }, label), input, list, help);
  return { name, node, value: () => input.value.trim(), focus: () => input.focus() };
}

function option(value: string): HTMLElement {
  return h("option", { value });
}

/** A word of success, read out and gone by itself; with a link it stays for long enough to be followed. */
export function say(text: string, link?: Child): void {
  let place = document.getElementById("said");
  if (place === null) {
    place = h("div", { id: "said", role: "status" });
    document.body.append(place);
  }
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close" }, "×");
  const note = h("p", {}, text, link ? [" ", link] : null, " ", close);
  close.addEventListener("click", () => note.remove());
  place.append(note);
  setTimeout(() => note.remove(), link ? 120_000 : 8_000);
}
