/** What a page is given, and the one way to show what is asked for. */

import type { Api } from "./api.ts";
import { h, replace, type Child } from "./element.ts";
import type { Live } from "./live.ts";
import { asProblem, isAbort, Problem } from "./problem.ts";
import { problemBox } from "./problem-box.ts";
import type { About } from "./shapes.ts";

export interface Context {
  api: Api;
  live: Live;
  /** What the service says of itself; null until it has. */
  about(): About | null;
  /** Aborts when the reader goes to another page. */
  signal: AbortSignal;
  /** To another page, by its path below the base path. */
  go(path: string, options?: { replace?: boolean }): void;
  title(text: string): void;
}

const SHARE = 10; // times as long as an answer took: an open page keeps a service busy for a tenth of its time at most

export interface Shown<T> {
  node: HTMLElement;
  /** Ask again, now. */
  refresh(): Promise<void>;
  /** Show this instead, without asking. */
  show(value: T): void;
}

/**
 * A place that shows what `load` gives: first that it is on its way, then it, or the problem with a way to try again.
 *
 * What was shown stays when a later look fails, with a word above. Nothing is drawn anew while nothing has changed. With
 * `everyMs` it asks again, while the page is visible; an outage is tried again in any case.
 */
export function shown<T>(
  context: Context,
  load: (signal: AbortSignal) => Promise<T>,
  draw: (value: T) => Child,
  options: { everyMs?: (value: T) => number | null; label: string },
): Shown<T> {
  const { signal } = context;
  const stale = h("div", { "aria-live": "polite" });
  const content = h("div", { class: "content" }, h("p", { class: "loading" }, `Loading ${options.label} …`));
  const node = h("div", { "aria-busy": "true" }, stale, content);
  let drawn: string | null = null;
  let value: T | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asking: Promise<void> | null = null;

  function show(next: T): void {
    value = next;
    node.removeAttribute("aria-busy");
    const print = JSON.stringify(next);
    replace(stale);
    if (print === drawn) return;
    drawn = print;
    replace(content, draw(next));
  }

  function fail(problem: Problem): void {
    node.removeAttribute("aria-busy");
    const again = h("button", { type: "button", onclick: () => void refresh() }, "Try again");
    if (drawn === null) replace(content, problemBox(problem, again));
    else replace(stale, problemBox(problem, again, "What you see is older than this."));
  }

  async function ask(): Promise<void> {
    clearTimeout(timer);
    let next: number | null = 5_000;
    const began = performance.now();
    try {
      show(await load(signal));
      next = value === null ? null : (options.everyMs?.(value) ?? null);
      if (next !== null) next = Math.max(next, SHARE * (performance.now() - began));
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      const problem = asProblem(error);
      if (problem.status === -1) console.error(error);
      fail(problem);
      if (!problem.isOutage) next = null;
      else if (problem.retryAfterS !== null) next = Math.max(1_000, problem.retryAfterS * 1_000);
    }
    schedule(next);
  }

  function schedule(ms: number | null): void {
    if (ms === null || signal.aborted) return;
    timer = setTimeout(() => {
      if (document.visibilityState === "hidden") {
        document.addEventListener("visibilitychange", () => void refresh(), { once: true, signal });
      } else {
        void refresh();
      }
    }, ms);
  }

  function refresh(): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    asking ??= ask().finally(() => {
      asking = null;
    });
    return asking;
  }

  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  void refresh();
  return { node, refresh, show };
}
