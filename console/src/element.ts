/** Elements, made from words: every string becomes text, never markup. Nothing in the console assigns HTML. */

export type Child = Node | string | number | null | undefined | false | readonly Child[];

export interface Attributes {
  class?: string;
  id?: string;
  title?: string;
  role?: string;
  type?: string;
  name?: string;
  value?: string;
  placeholder?: string;
  for?: string;
  list?: string;
  scope?: string;
  href?: string;
  rel?: string;
  target?: string;
  datetime?: string;
  tabindex?: string;
  autocomplete?: string;
  rows?: string;
  maxlength?: string;
  colspan?: string;
  disabled?: boolean;
  checked?: boolean;
  selected?: boolean;
  open?: boolean;
  required?: boolean;
  hidden?: boolean;
  spellcheck?: string;
  [data: `data-${string}`]: string;
  [aria: `aria-${string}`]: string | undefined;
  onclick?: (event: MouseEvent) => void;
  onchange?: (event: Event) => void;
  onsubmit?: (event: SubmitEvent) => void;
  oninput?: (event: Event) => void;
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes) as [string, unknown][]) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value as EventListener);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...nodes(children));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag: string, attributes: Record<string, string | number>, ...children: Child[]): SVGElement {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...nodes(children));
  return element;
}

function nodes(children: readonly Child[]): (Node | string)[] {
  const found: (Node | string)[] = [];
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (typeof child === "string" || typeof child === "number") found.push(String(child));
    else if (child instanceof Node) found.push(child);
    else found.push(...nodes(child));
  }
  return found;
}

/** Put children in an element's place for children; a field with focus and opened details stay as they were. */
export function replace(element: Element, ...children: Child[]): void {
  const focused = element.contains(document.activeElement) ? (document.activeElement?.id ?? "") : "";
  const opened = [...element.querySelectorAll("details[open][id]")].map((each) => each.id);
  element.replaceChildren(...nodes(children));
  for (const id of opened) element.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
  if (focused !== "") element.querySelector<HTMLElement>(`#${CSS.escape(focused)}`)?.focus({ preventScroll: true });
}
