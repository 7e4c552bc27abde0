/** Requests to the service: JSON in, JSON out, `Problem` for everything else. */

import { parse } from "./exact-json.ts";
import { asProblem, isAbort, Problem, problemOf } from "./problem.ts";
import { withQuery } from "./route.ts";

const PATIENCE_MS = 30_000;

export type Query = Record<string, string | null | undefined>;

/** Knows the token, asks for one, is told how requests went. */
export interface Access {
  token(): string;
  /** The service refuses `refused`; another one, or "" if nobody gives one. */
  ask(refused: string): Promise<string>;
  answered(): void;
  failed(problem: Problem): void;
}

export class Api {
  /** Ends in a slash: `/api/v1/` below the base path. */
  readonly root: string;
  private readonly access: Access;

  constructor(root: string, access: Access) {
    this.root = root;
    this.access = access;
  }

  async get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
    return (await this.asked("GET", withQuery(path, query), undefined, signal)) as T;
  }

  async post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
    return (await this.asked("POST", path, JSON.stringify(body), undefined, headers)) as T;
  }

  /** As `post`, for a body that is JSON already. */
  async postText<T>(path: string, body: string, headers: Record<string, string> = {}): Promise<T> {
    return (await this.asked("POST", path, body, undefined, headers)) as T;
  }

  /** The answer, its body unread; `signal` makes what ends each try. Asks for a token when one is needed. */
  async open(
    path: string,
    headers: Record<string, string>,
    signal: () => AbortSignal,
    init: RequestInit = {},
  ): Promise<Response> {
    let token = this.access.token();
    for (;;) {
      const authorized = token === "" ? headers : { ...headers, Authorization: `Bearer ${token}` };
      const answer = await fetch(this.root + path, { ...init, headers: authorized, signal: signal(), redirect: "error" });
      if (answer.status !== 401) return answer;
      token = await this.access.ask(token);
      if (token === "") return answer;
    }
  }

  private async asked(
    method: string,
    path: string,
    body: string | undefined,
    signal: AbortSignal | undefined,
    headers: Record<string, string> = {},
  ): Promise<unknown> {
    const ends = (): AbortSignal => {
      const limit = AbortSignal.timeout(PATIENCE_MS);
      return signal === undefined ? limit : AbortSignal.any([signal, limit]);
    };
    const init: RequestInit = body === undefined ? { method } : { method, body };
    const said = body === undefined ? {} : { "Content-Type": "application/json" };
    try {
      const answer = await this.open(path, { Accept: "application/json", ...said, ...headers }, ends, init);
      const text = await answer.text();
      if (!answer.ok) throw problemOf(answer.status, answer.statusText, text, answer.headers.get("Retry-After"));
      this.access.answered();
      return read(text);
    } catch (error) {
      if (isAbort(error)) throw error;
      const problem = asProblem(error);
      this.access.failed(problem);
      throw problem;
    }
  }
}

function read(text: string): unknown {
  if (text === "") return null;
  try {
    return parse(text);
  } catch {
    const why = "Something between here and the service answers in its place, or the address is another program's.";
    throw new Problem(502, "No JSON", "The answer is not what the service says.", "", why, "Look at the proxy.");
  }
}
