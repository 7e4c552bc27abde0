/** What went wrong, in the words of the service: problem details (RFC 9457) with `code`, `why` and `do`. */

export class Problem extends Error {
  override readonly name = "Problem";

  /** The HTTP status; 0 if there was no answer, -1 if the console itself is at fault. */
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  readonly code: string;
  readonly why: string;
  readonly advice: string;
  readonly retryAfterS: number | null;

  constructor(
    status: number,
    title: string,
    detail = "",
    code = "",
    why = "",
    advice = "",
    retryAfterS: number | null = null,
  ) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.code = code;
    this.why = why;
    this.advice = advice;
    this.retryAfterS = retryAfterS;
  }

  /** Not the request is at fault, but the way to the service, or its state. */
  get isOutage(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** From an answer that says no. `body` is its text: a proxy's may be anything. */
export function problemOf(status: number, statusText: string, body: string, retryAfter: string | null): Problem {
  const said = object(body);
  const text = (name: string): string => (typeof said[name] === "string" ? said[name] : "");
  const seconds = retryAfter !== null && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) : null;
  const title = text("title") || statusText || `HTTP ${status}`;
  return new Problem(status, title, text("detail"), text("code"), text("why"), text("do"), seconds);
}

function object(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Whatever was thrown, as a problem. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new Problem(0, "No answer in time", "The service did not answer within 30 seconds.", "", "", "It is asked again.");
  }
  if (error instanceof TypeError) {
    return new Problem(0, "No connection", "The service cannot be reached.", "", "", "Is it running? It is asked again.");
  }
  return new Problem(-1, "The console has a fault", String(error), "", "", "Reload the page.");
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
