/** Which page an address means, and the address of each page. Addresses are relative to the console's base path. */

export type Route =
  | { page: "overview" }
  | { page: "runs"; query: URLSearchParams }
  | { page: "run"; id: string }
  | { page: "workflow"; namespace: string; name: string }
  | { page: "approvals"; query: URLSearchParams }
  | { page: "schedules"; query: URLSearchParams }
  | { page: "dead-letters"; query: URLSearchParams }
  | { page: "unknown"; path: string };

export const DEFAULT_NAMESPACE = "default";

/** `path` without the base path, with or without a slash at its ends. */
export function routeOf(path: string, search: string): Route {
  const parts = path.split("/").filter((part) => part !== "");
  const named: string[] = [];
  for (const part of parts) {
    const name = decoded(part);
    if (name === null) return { page: "unknown", path };
    named.push(name);
  }
  const [first, second, third] = named;
  const query = new URLSearchParams(search);
  if (first === undefined) return { page: "overview" };
  if (named.length === 1) {
    if (first === "runs" || first === "approvals" || first === "schedules" || first === "dead-letters") {
      return { page: first, query };
    }
  }
  if (first === "runs" && second !== undefined && named.length === 2) return { page: "run", id: second };
  if (first === "workflows" && second !== undefined) {
    if (named.length === 2) return { page: "workflow", namespace: DEFAULT_NAMESPACE, name: second };
    if (named.length === 3 && third !== undefined) return { page: "workflow", namespace: second, name: third };
  }
  return { page: "unknown", path };
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** Relative to the base path, without a slash in front. */
export function runPath(id: string): string {
  return `runs/${encodeURIComponent(id)}`;
}

export function workflowPath(namespace: string, name: string): string {
  const place = encodeURIComponent(name);
  return namespace === DEFAULT_NAMESPACE ? `workflows/${place}` : `workflows/${encodeURIComponent(namespace)}/${place}`;
}

/** The list of runs, narrowed; empty values are left out. */
export function runsPath(filter: Record<string, string | null | undefined>): string {
  return withQuery("runs", filter);
}

export function withQuery(path: string, values: Record<string, string | null | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value) query.set(name, value);
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}

/** The path below `base` (which ends in a slash), or null if it lies elsewhere. */
export function pathBelow(base: string, pathname: string): string | null {
  if (pathname === base.slice(0, -1)) return "";
  return pathname.startsWith(base) ? pathname.slice(base.length) : null;
}
