/** What the overview counts. Pure. */

import type { Stats } from "./shapes.ts";

export interface WorkflowCounts {
  namespace: string;
  workflow: string;
  byStatus: Record<string, number>;
  total: number;
}

/** All versions of a workflow together, and `known` ones that have no run; the busiest (most open, then most runs) first. */
export function byWorkflow(
  runs: Stats["runs"],
  known: readonly { namespace: string; workflow: string }[] = [],
): WorkflowCounts[] {
  const found = new Map<string, WorkflowCounts>();
  for (const { namespace, workflow } of known) {
    found.set(`${namespace}/${workflow}`, { namespace, workflow, byStatus: {}, total: 0 });
  }
  for (const { namespace, workflow, status, runs: count } of runs) {
    const name = `${namespace}/${workflow}`;
    const row = found.get(name) ?? { namespace, workflow, byStatus: {}, total: 0 };
    row.byStatus[status] = (row.byStatus[status] ?? 0) + count;
    row.total += count;
    found.set(name, row);
  }
  return [...found.values()].sort(
    (one, other) =>
      open(other) - open(one) ||
      other.total - one.total ||
      one.workflow.localeCompare(other.workflow) ||
      one.namespace.localeCompare(other.namespace),
  );
}

function open(row: WorkflowCounts): number {
  return (row.byStatus["running"] ?? 0) + (row.byStatus["queued"] ?? 0) + (row.byStatus["parked"] ?? 0);
}

export function totals(rows: readonly WorkflowCounts[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const row of rows) {
    for (const [status, count] of Object.entries(row.byStatus)) sum[status] = (sum[status] ?? 0) + count;
  }
  return sum;
}

/** Several statuses of a row as one number. */
export function sumOf(counts: Record<string, number>, ...statuses: string[]): number {
  return statuses.reduce((sum, status) => sum + (counts[status] ?? 0), 0);
}
