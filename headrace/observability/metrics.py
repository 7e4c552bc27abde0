"""The table of all metric families: name, type, labels, help, buckets. Data only; `prometheus.py` fills it.

Names are a contract (dashboards, alert rules, docs/metrics.md; a test holds table and page together). Labels are
closed words, topics, and names from definitions; never an id or a user's value. Base units: seconds, bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

PREFIX: Final = "headrace_"


class Kind(StrEnum):
    """Prometheus' types. `gauge` families are read from a snapshot at each scrape."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One family.

    `name` is without prefix, with `_total`; `buckets` are upper bounds without +Inf.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As in a scrape and in docs/metrics.md."""
        return PREFIX + self.name

    @property
    def series(self) -> int:
        """What one set of label values costs the series budget."""
        return len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1


RUN_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
WAIT_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600)
TASK_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LOG_SECONDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15)
MATCH_SECONDS: Final = (0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.05, 0.5)
LOOP_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10)
RECOVERY_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
SIZE_BYTES: Final = (128, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
COMMIT_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def _counter(name: str, help_: str, *labels: str) -> Family:
    return Family(name=name, kind=Kind.COUNTER, help=help_, labels=labels)


def _gauge(name: str, help_: str, *labels: str) -> Family:
    return Family(name=name, kind=Kind.GAUGE, help=help_, labels=labels)


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Family:
    return Family(name=name, kind=Kind.HISTOGRAM, help=help_, labels=labels, buckets=buckets)


TABLE: Final[tuple[Family, ...]] = (
    # events
    _counter("events_consumed_total", "Source records read by the router.", "topic"),
    _histogram("event_size_bytes", "Size of a source record: key, value and headers.", SIZE_BYTES, "topic"),
    _histogram("event_delay_seconds", "Source record time to its reading by the router.", WAIT_SECONDS, "topic"),
    _counter("events_discarded_total", "Source records that made no command.", "topic", "reason"),
    _counter(
        "trace_contexts_refused_total",
        "Source records, and starts over HTTP (as topic (http)), whose trace context is not sound: left out.",
        "topic",
    ),
    _histogram("event_match_duration_seconds", "Decoding and matching of one source record.", MATCH_SECONDS),
    _counter(
        "dead_letters_total",
        "Records acknowledged by a dead-letter topic; topic is the source, reason the stage.",
        "topic",
        "workflow",
        "reason",
    ),
    _gauge("dead_letters_open", "Dead letters that nobody has redriven or resolved.", "topic"),
    _counter("dead_letter_redrives_total", "Redriven dead letters that were taken up.", "result"),
    # runs
    _counter("runs_started_total", "Runs admitted: their first instructions are carried out.", "workflow", "trigger"),
    _counter("runs_finished_total", "Runs whose terminal record was read back.", "workflow", "status"),
    _histogram("run_duration_seconds", "Start command to terminal record.", RUN_SECONDS, "workflow", "status"),
    _gauge("runs_active", "Open runs by where they stand; the states exclude each other.", "workflow", "state"),
    _histogram("run_start_delay_seconds", "Source record time to the run's admission.", WAIT_SECONDS, "workflow"),
    _histogram(
        "run_result_delay_seconds",
        "Source record time to acknowledged result record.",
        WAIT_SECONDS,
        "workflow",
    ),
    _gauge("oldest_active_run_start_timestamp_seconds", "When the oldest open run started, since 1970.", "workflow"),
    _counter("runs_parked_total", "Runs taken out of progress until somebody acts.", "workflow", "reason"),
    # tasks
    _counter("task_attempts_total", "Attempts by how they ended.", "workflow", "task", "result"),
    _counter("task_retries_total", "Failed attempts that are followed by another.", "workflow", "task", "error"),
    _histogram("task_duration_seconds", "Handler time of one attempt.", TASK_SECONDS, "workflow", "task"),
    _histogram("task_start_delay_seconds", "Ready to started, waits for policies included.", WAIT_SECONDS, "workflow"),
    _gauge("tasks_in_progress", "Attempts running now.", "workflow"),
    _gauge("tasks_queued", "Tasks without a running attempt, by what they wait for.", "workflow", "state"),
    _counter("compensations_total", "Undos that are over for good.", "workflow", "result"),
    _counter("handlers_abandoned_total", "Handlers still running that nobody waits for.", "workflow", "task", "reason"),
    # timers, schedules, approvals
    _gauge("timers_pending", "Sleeps and deadlines that are armed."),
    _histogram("timer_fire_delay_seconds", "Due time to the timer's outcome in the log.", WAIT_SECONDS),
    _counter("schedule_misfires_total", "Slots of schedules that were missed and start nothing.", "workflow"),
    _gauge("approvals_pending", "Approvals that nobody has decided.", "workflow"),
    _histogram(
        "approval_wait_seconds",
        "Request to decision, or to where it ended without one.",
        RUN_SECONDS,
        "workflow",
        "decision",
    ),
    # outputs
    _counter("outputs_resent_total", "Outbox entries sent again after a failure or take-over.", "topic"),
    _counter("outputs_refused_total", "Outbox entries that their topic will never take.", "topic"),
    # Kafka (the embedded log counts the same way)
    _gauge(
        "kafka_consumer_lag_records", "Records between a group's position and the end.", "topic", "partition", "group"
    ),
    _gauge("kafka_consumer_lag_seconds", "Age of the first record not done.", "topic", "partition", "group"),
    _gauge("kafka_partitions_assigned", "Partitions that this process reads or owns.", "group"),
    _counter("kafka_rebalances_total", "Changes of placement seen here.", "group", "event"),
    _histogram("kafka_rebalance_duration_seconds", "Old placement lost to new one known.", RECOVERY_SECONDS, "group"),
    _counter("kafka_produced_records_total", "Records appended or published, by result.", "topic", "result"),
    _histogram("kafka_produce_duration_seconds", "One batch, from the call to its end.", LOG_SECONDS, "topic"),
    # the run log
    _histogram("log_append_duration_seconds", "One run-log batch, from the call to the acknowledgement.", LOG_SECONDS),
    _histogram("log_readback_duration_seconds", "One run-log batch, from the call to its reading.", LOG_SECONDS),
    _histogram("log_commit_records", "Records in one run-log batch.", COMMIT_RECORDS),
    _counter("log_written_bytes_total", "Bytes of the run log, as its owners read them.", "kind"),
    _counter("log_skipped_records_total", "Records that the accept rule skipped.", "reason"),
    _gauge("log_bytes", "Run-log bytes since the last checkpoint.", "partition"),
    _gauge("checkpoint_bytes", "Size of the last checkpoint.", "partition"),
    _counter("checkpoints_failed_total", "Checkpoints that were given up; the run log grows until one succeeds."),
    _histogram("recovery_duration_seconds", "Taking one partition: decision to state folded.", RECOVERY_SECONDS),
    _counter("recovery_records_total", "Records replayed when partitions were taken."),
    _counter("ownership_changes_total", "Run-log partitions taken, released and lost.", "reason"),
    _gauge("partitions_stopped", "Partitions that stand still until somebody acts.", "topic", "reason"),
    _gauge("source_backlog_bytes", "Bytes of starts that wait for room.", "topic"),
    _gauge("history_lag_records", "Records that the history has not read."),
    _gauge("history_lag_seconds", "Age of the first record that the history has not read."),
    # policies
    _gauge("circuit_breaker_state", "1 for the state that the breaker is in.", "breaker", "state"),
    _counter("circuit_breaker_transitions_total", "Changes into a state.", "breaker", "state"),
    _counter("circuit_breaker_calls_total", "Calls by what the breaker made of them.", "breaker", "result"),
    _gauge("pool_slots", "Size of a pool.", "pool"),
    _gauge("pool_slots_in_use", "Attempts running in a pool.", "pool"),
    _histogram(
        "rate_limit_wait_seconds",
        "Ready to the attempt's token, waits for breaker and pool included.",
        WAIT_SECONDS,
        "limiter",
    ),
    # API
    _counter("http_requests_total", "Requests answered.", "method", "route", "code"),
    _histogram("http_request_duration_seconds", "Time to answer.", TASK_SECONDS, "method", "route", "code"),
    _gauge("sse_clients", "Live update streams that are open."),
    # the process
    _histogram("event_loop_delay_seconds", "Ready callback to its turn on the event loop.", LOOP_SECONDS),
    _counter("event_loop_blocked_total", "Times that the loop stood still too long; by handler.", "handler"),
    _counter("event_loop_fenced_total", "Stalls after which partitions were announced anew before going on."),
    _gauge("resource_used_ratio", "Share of a limit of the process that is used.", "resource"),
    _counter("trace_spans_total", "Spans made, and what became of them; the rest waits or was dropped.", "result"),
    _counter("metrics_port_errors_total", "Requests of the metrics port without a whole and good answer.", "reason"),
    _gauge("workflow_definitions", "Definitions by status.", "status"),
    _gauge("metric_series", "Series of this exposition that count against the budget."),
    _counter("metric_series_folded_total", "Measurements whose labels were dropped: over the series budget."),
    Family(
        name="build_info",
        kind=Kind.INFO,
        help="Versions of what runs here; always 1.",
        labels=("version", "python", "backend"),
    ),
    # forecast
    _gauge(
        "forecast_backlog_drain_seconds", "Time until no start waits at the present rates; +Inf: never.", "workflow"
    ),
    _gauge("forecast_backlog_breach_seconds", "Time until a start waits too long, telemetry.delay_limit.", "workflow"),
    _gauge("forecast_arrivals_per_second", "Runs that come, with the trend of the last minutes.", "workflow"),
    _gauge("forecast_capacity_per_second", "Runs that this process can serve with what limits it.", "workflow"),
    _gauge("forecast_utilization_ratio", "Share of a resource that is used.", "resource"),
    _gauge("forecast_workers_needed", "Workers like this that its share of the load needs; add up, then round up."),
    _gauge("forecast_bottleneck", "1 for what limits now.", "resource"),
    _gauge("forecast_bottleneck_relief_ratio", "How many times as much would pass without it.", "resource"),
)

BY_NAME: Final[dict[str, Family]] = {family.name: family for family in TABLE}
