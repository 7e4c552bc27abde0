/** The JSON of the API, as far as the console reads it. Keys are added by the service, never renamed. */

export interface RunSummary {
  id: string;
  workflow: string;
  namespace: string;
  version: string;
  status: string;
  key: string | null;
  trigger: string;
  source: string | null;
  started_at: string;
  ended_at: string | null;
  duration_ms: number | null;
  attempts: number;
  retries: number;
  error: string;
  message: string;
  failed_step: string;
  parked: string;
  retry_of: string;
  retriable: boolean;
}

export interface OpenStep {
  step: string;
  waits_for: string;
  /** RFC 3339; "" if that may take for ever. */
  until: string;
  /** Of an approval: its id, what people are asked, and who of them. */
  approval?: string;
  title?: string;
  roles?: string[];
}

/** A run that a step began; its status is known of one that is awaited and has ended. */
export interface ChildRun {
  step: string;
  run: string;
  workflow: string;
  awaited: boolean;
  status: string | null;
}

export interface RunDetail extends RunSummary {
  input: unknown;
  result: unknown;
  waiting: OpenStep[];
  joined: number;
  undone: number;
  undo_failed: number;
  parked_step: string;
  expected: string;
  found: string;
  retry: string;
  trace_id: string;
  producer_trace_id: string;
  parent?: string;
  parent_step?: string;
  children?: ChildRun[];
}

export interface HistoryEntry {
  offset: number;
  time: string;
  kind: string;
  step: string | null;
  handler: string | null;
  attempt: number | null;
  duration_ms: number | null;
  cause: string | null;
  error: string | null;
  message: string | null;
  retry_after_ms: number | null;
  detail: string;
  effect: string;
  reason: string | null;
  record: unknown;
}

export interface Trigger {
  kind?: string;
  topic?: string;
  type?: string | null;
  attributes?: Record<string, string>;
  filter?: boolean;
  /** What is no event's trigger, in words. */
  words?: string;
}

export interface Workflow {
  namespace: string;
  workflow: string;
  version: string;
  versions?: string[];
  description?: string;
  triggers?: Trigger[];
  key?: boolean;
  on_conflict?: string;
  timeout_ms?: number | null;
  emits?: string[];
  runs?: Record<string, number>;
  handlers?: HandlerFacts[];
}

export interface HandlerFacts {
  name: string;
  [fact: string]: unknown;
}

export interface Stats {
  runs: { namespace: string; workflow: string; version: string; status: string; runs: number }[];
  lag: { topic: string; records: number; seconds: number | null }[];
  bottleneck: { resource: string; utilization: number | null; relief: unknown } | null;
  stopped: { topic: string; partition: number; reason: string }[];
  notes?: string[];
}

export interface About {
  app: string;
  version: string;
  environment: string;
  backend: string;
  instance?: string;
  console?: { trace_url?: string };
}

/** One page of a list, newest first; `notes` say what may be missing. */
export interface Listed<T> {
  items: T[];
  next?: string | null;
  notes?: string[];
}

export const STATUSES = [
  "running",
  "queued",
  "parked",
  "succeeded",
  "failed",
  "cancelled",
  "timed_out",
  "compensated",
] as const;

export const OPEN: ReadonlySet<string> = new Set(["running", "queued", "parked"]);

export interface Schedule {
  id: string;
  namespace: string;
  workflow: string;
  version: string;
  cron: string | null;
  every_ms: number | null;
  timezone: string;
  misfire: string;
  overlap: string;
  start: string | null;
  end: string | null;
  status: string;
  active_since: string;
  last_slot: string | null;
  next_slot: string | null;
  paused_at: string | null;
  fired: number;
  missed: number;
  skipped: number;
  last_run: string | null;
}

export interface DeadLetter {
  id: string;
  topic: string;
  partition: number;
  offset: number;
  at: string;
  state: string;
  stage: string;
  code: string;
  error: string;
  workflow: string | null;
  source: string | null;
  to: string;
  key: string | null;
  attempts: number;
  bytes: number;
  kept: string;
  redrives: number;
  handled_at: string | null;
  handled_by: string;
  note: string;
}

export interface DeadLetterDetail extends DeadLetter {
  headers?: [string, string][];
  value?: string | null;
  value_base64?: string;
}

export interface Approval {
  id: string;
  run: string;
  step: string;
  namespace: string;
  workflow: string;
  title: string;
  roles: string[];
  requested_at: string;
  due_at: string | null;
  status?: string;
}
