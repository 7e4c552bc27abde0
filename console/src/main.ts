/** The shell: navigation, the way between pages, and the state of the connection. */

import { Api } from "./api.ts";
import type { Context } from "./context.ts";
import { h, replace, type Child } from "./element.ts";
import { Live } from "./live.ts";
import { approvals } from "./pages/approvals.ts";
import { deadLetters } from "./pages/dead-letters.ts";
import { overview } from "./pages/overview.ts";
import { run } from "./pages/run.ts";
import { runs } from "./pages/runs.ts";
import { schedules } from "./pages/schedules.ts";
import { workflow } from "./pages/workflow.ts";
import { empty } from "./problem-box.ts";
import type { Problem } from "./problem.ts";
import { pathBelow, routeOf, type Route } from "./route.ts";
import type { About } from "./shapes.ts";
import { TokenAccess } from "./token.ts";

const base = new URL(document.baseURI).pathname;
const main = h("main", { id: "main", tabindex: "-1" });
const banner = h("div", { class: "banner", role: "status" });
const light = h("span", { class: "light" });
const app = h("span", { class: "app" });
const nav = h("nav", { "aria-label": "Pages" });
const named = new Map<Route["page"], HTMLElement>();

let about: About | null = null;
let leave = new AbortController();
let isOut = false;

const api = new Api(
  `${base}api/v1/`,
  new TokenAccess({
    answered: () => outage(null),
    failed: (problem) => {
      if (problem.isOutage) outage(problem);
    },
  }),
);
const live = new Live(api);

/** Say that the service is away; null: it is there. */
function outage(problem: Problem | null): void {
  if (problem === null && !isOut) return;
  isOut = problem !== null;
  replace(banner, problem === null ? null : h("p", {}, `${problem.title}. ${problem.detail} Trying again …`));
  if (problem !== null) return;
  live.poke();
  if (about === null) void findAbout();
}

function shell(): void {
  const pages: [Route["page"], string, string][] = [
    ["overview", "./", "Overview"],
    ["runs", "runs", "Runs"],
    ["approvals", "approvals", "Approvals"],
    ["schedules", "schedules", "Schedules"],
    ["dead-letters", "dead-letters", "Dead letters"],
  ];
  for (const [page, href, name] of pages) {
    const link = h("a", { href, hidden: page !== "overview" && page !== "runs" }, name);
    named.set(page, link);
    nav.append(link);
  }
  document.body.append(
    h("a", { class: "skip", href: "#main", onclick: skip }, "To the content"),
    h("header", {}, h("a", { class: "brand", href: "./" }, "Headrace"), app, nav, light),
    banner,
    main,
  );
}

function skip(event: MouseEvent): void {
  event.preventDefault();
  main.focus();
}

/** Sections whose API is not there stay hidden: what there is, the service's own description says. */
async function findSections(): Promise<void> {
  const sections = ["approvals", "schedules", "dead-letters"] as const;
  let paths: string[] | null = null;
  try {
    paths = Object.keys((await api.get<{ paths: Record<string, unknown> }>("../openapi.json")).paths);
  } catch {
    // without it, better too much than too little: a page says what it does not find
  }
  for (const page of sections) {
    if (paths === null || paths.some((path) => path.endsWith(`/${page}`))) named.get(page)?.removeAttribute("hidden");
  }
}

function render(): void {
  leave.abort();
  leave = new AbortController();
  const route = routeOf(pathBelow(base, location.pathname) ?? location.pathname, location.search);
  const context: Context = {
    api,
    live,
    about: () => about,
    signal: leave.signal,
    go,
    title: (text) => {
      document.title = about === null ? `${text} · Headrace` : `${text} · ${about.app} · Headrace`;
    },
  };
  for (const [page, link] of named) {
    const isHere = page === route.page || (page === "runs" && route.page === "run");
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  replace(main, pageOf(route, context));
}

function pageOf(route: Route, context: Context): Child {
  switch (route.page) {
    case "overview":
      return overview(context);
    case "runs":
      return runs(context, route.query);
    case "run":
      return run(context, route.id);
    case "workflow":
      return workflow(context, route.namespace, route.name);
    case "approvals":
      return approvals(context, route.query);
    case "schedules":
      return schedules(context);
    case "dead-letters":
      return deadLetters(context, route.query);
    case "unknown":
      context.title("No such page");
      return [h("h1", {}, "No such page"), empty("There is nothing at this address.", h("a", { href: "./" }, "To the overview"))];
  }
}

function go(path: string, options: { replace?: boolean } = {}): void {
  const address = new URL(path, document.baseURI);
  if (options.replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  render();
  if (!options.replace) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

/** Links of ours change the page without loading the console anew. */
function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.("a");
  if (!link || link.target || link.hasAttribute("download")) return;
  const address = new URL(link.href);
  if (address.origin !== location.origin || pathBelow(base, address.pathname) === null) return;
  event.preventDefault();
  go(address.href);
}

function showState(): void {
  const words = { connecting: "Connecting", live: "Live", lost: "Not live", polling: "Every few seconds" };
  const hints = {
    connecting: "The stream of what happens is being opened.",
    live: "What happens is shown at once.",
    lost: "The stream has ended; it is opened again.",
    polling: "This service has no stream: pages ask again by themselves.",
  };
  live.watch(
    {
      state: (state) => {
        light.dataset["state"] = state;
        light.title = hints[state];
        light.textContent = words[state];
      },
    },
    new AbortController().signal,
  );
}

async function begin(): Promise<void> {
  shell();
  showState();
  document.addEventListener("click", follow);
  addEventListener("popstate", render);
  addEventListener("online", () => live.poke());
  addEventListener("pagehide", () => live.rest());
  addEventListener("pageshow", () => live.resume());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") live.rest();
    else live.resume();
  });
  await findAbout();
  render();
  void live.run();
  void findSections();
}

async function findAbout(): Promise<void> {
  try {
    about = await api.get<About>("about");
  } catch {
    return; // the pages say what is wrong
  }
  app.textContent = about.environment ? `${about.app} · ${about.environment}` : about.app;
  app.title = `Headrace ${about.version}, log: ${about.backend}`;
}

void begin();
