"""What a scrape shows of the state of the process: the rows of each gauge family.

Called in the thread that answers a scrape, with a snapshot that nobody changes.
"""

from __future__ import annotations

from headrace.observability.accumulator import Labels
from headrace.observability.label import BreakerState
from headrace.observability.snapshot import Snapshot


def snapshot_gauges(now: Snapshot) -> dict[str, list[tuple[Labels, float]]]:
    """Rows by family name without prefix; those of a family have different labels."""
    runs: list[tuple[Labels, float]] = []
    queued: list[tuple[Labels, float]] = []
    for flow in now.workflows:
        runs.extend(((flow.workflow, state), count) for state, count in flow.runs.items())
        queued.extend(((flow.workflow, state), count) for state, count in flow.tasks_queued.items())
    return {
        "runs_active": runs,
        "tasks_queued": queued,
        "tasks_in_progress": [((flow.workflow,), flow.tasks_in_progress) for flow in now.workflows],
        "oldest_active_run_start_timestamp_seconds": [
            ((flow.workflow,), flow.oldest_active_run_start_ms / 1000)
            for flow in now.workflows
            if flow.oldest_active_run_start_ms is not None
        ],
        "timers_pending": [((), now.timers_pending)],
        "approvals_pending": [((workflow,), count) for workflow, count in now.approvals_pending.items()],
        "kafka_consumer_lag_records": [((lag.topic, str(lag.partition), lag.group), lag.records) for lag in now.lag],
        "kafka_consumer_lag_seconds": [((lag.topic, str(lag.partition), lag.group), lag.seconds) for lag in now.lag],
        "kafka_partitions_assigned": [((group,), count) for group, count in now.partitions_assigned.items()],
        "circuit_breaker_state": [
            ((breaker.breaker, state), float(breaker.state is state))
            for breaker in now.breakers
            for state in BreakerState
        ],
        "pool_slots": [((pool.pool,), pool.slots) for pool in now.pools],
        "pool_slots_in_use": [((pool.pool,), pool.slots_in_use) for pool in now.pools],
        "log_bytes": [((str(part.partition),), part.log_bytes) for part in now.log_partitions],
        "checkpoint_bytes": [((str(part.partition),), part.checkpoint_bytes) for part in now.log_partitions],
        "sse_clients": [((), now.sse_clients)],
        "partitions_stopped": [((stop.topic, stop.reason), stop.partitions) for stop in now.stopped],
        "history_lag_records": [((), now.history.lag_records)] if now.history is not None else [],
        "history_lag_seconds": [((), now.history.lag_seconds)] if now.history is not None else [],
        "source_backlog_bytes": [((topic,), size) for topic, size in now.source_backlog_bytes.items()],
        "dead_letters_open": [((topic,), count) for topic, count in now.dead_letters.items()],
        "workflow_definitions": [((status,), count) for status, count in now.definitions.items()],
    }
