"""Workers: the processes: event loop, slots, CPU, memory, policies, timers."""

from typing import Final

from deploy.monitoring.dashboard import Dashboard, Row
from deploy.monitoring.metric import INTERVAL, per_second, quantile, select, total
from deploy.monitoring.panel import Lines, Query, Table, Unit

WORKERS: Final = Dashboard(
    uid="headrace-workers",
    title="Headrace / Workers",
    description="The processes themselves, their HTTP API, and how far the history is behind.",
    rows=(
        Row(
            "Processes",
            (
                Table(
                    title="Versions",
                    description="What runs where.",
                    unit=Unit.COUNT,
                    height=6,
                    queries=(
                        Query(
                            f"count by (job, instance, version, python, backend) ({select('build_info')})", "processes"
                        ),
                    ),
                ),
                Lines(
                    title="CPU",
                    description="Cores in use. One process has one event loop: near 1 it is full.",
                    unit=Unit.COUNT,
                    queries=(Query(f"rate({select('process_cpu_seconds_total')}[{INTERVAL}])", "{{instance}}"),),
                ),
                Lines(
                    title="Memory",
                    description="Resident memory.",
                    unit=Unit.BYTES,
                    queries=(Query(select("process_resident_memory_bytes"), "{{instance}}"),),
                ),
                Lines(
                    title="Limits used",
                    description="Share of the memory and of the file descriptors that the process may use.",
                    unit=Unit.SHARE,
                    queries=(Query(select("resource_used_ratio"), "{{instance}} {{resource}}"),),
                ),
                Lines(
                    title="Event loop delay, p99",
                    description="Ready callback to its turn. Everything in the process waits so long.",
                    unit=Unit.SECONDS,
                    queries=(Query(quantile(0.99, "event_loop_delay_seconds", by="instance"), "{{instance}}"),),
                ),
                Lines(
                    title="Loop blocked, by handler",
                    description="Times that the loop stood still too long; without a name no handler was on its stack. Fenced: for "
                    "half a session, so that partitions were announced anew.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(per_second("event_loop_fenced_total", by="instance"), "fenced {{instance}}"),
                        Query(
                            per_second("event_loop_blocked_total", by="instance, handler"), "{{instance}} {{handler}}"
                        ),
                    ),
                ),
                Lines(
                    title="Garbage collections",
                    description="Of the oldest generation: each looks through the whole heap.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(per_second("python_gc_collections_total", generation="2", by="instance"), "{{instance}}"),
                    ),
                ),
                Lines(
                    title="Restarts",
                    description="Changes of the process's start time within the interval.",
                    unit=Unit.COUNT,
                    queries=(Query(f"changes({select('process_start_time_seconds')}[{INTERVAL}])", "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "Work",
            (
                Lines(
                    title="Runs with work",
                    description="Open runs that run or undo, by process; worker.max_active_runs bounds them.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            f"{total('runs_active', state='~running|compensating', by='instance')} "
                            f"or {total('tasks_in_progress', by='instance')} * 0",
                            "{{instance}}",
                        ),
                    ),
                ),
                Lines(
                    title="Attempts in progress",
                    description="Handlers that run now, by process.",
                    unit=Unit.COUNT,
                    queries=(Query(total("tasks_in_progress", by="instance"), "{{instance}}"),),
                ),
                Lines(
                    title="Definitions",
                    description="Workflows loaded, and open runs whose version is loaded nowhere here.",
                    unit=Unit.COUNT,
                    queries=(Query(total("workflow_definitions", by="instance, status"), "{{instance}} {{status}}"),),
                ),
                Lines(
                    title="Timers armed",
                    description="Sleeps and deadlines.",
                    unit=Unit.COUNT,
                    queries=(Query(total("timers_pending", by="instance"), "{{instance}}"),),
                ),
                Lines(
                    title="Timers late",
                    description="Due time to the timer's outcome in the log. Never early.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "timer_fire_delay_seconds"), f"p{q * 100:.0f}") for q in (0.5, 0.99)
                    ),
                ),
                Lines(
                    title="Spans",
                    description="Spans made, and what became of them. Made faster than exported: the collector is slow or gone, and spans are dropped.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("trace_spans_total", by="result"), "{{result}}"),),
                ),
                Lines(
                    title="Trace contexts refused",
                    description="Source records whose traceparent or tracestate is not sound. They begin a trace of their own.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("trace_contexts_refused_total", by="topic"), "{{topic}}"),),
                ),
                Lines(
                    title="Metrics port errors",
                    description="Requests without a whole and good answer: ended to make room (crowded), ended after 10 s (timed_out), left by the "
                    "peer (gone), or not to be made (failed).",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            per_second("metrics_port_errors_total", by="instance, reason"), "{{instance}} {{reason}}"
                        ),
                    ),
                ),
                Lines(
                    title="Series",
                    description="Series that count against telemetry.series_budget; over it, labels are folded.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(select("metric_series"), "{{instance}}"),
                        Query(per_second("metric_series_folded_total", by="instance"), "folded/s {{instance}}"),
                    ),
                ),
            ),
        ),
        Row(
            "History",
            (
                Lines(
                    title="History lag",
                    description="Age of the first record of the run log that the history has not read. What lists show is so old; runs do not wait for it.",
                    unit=Unit.SECONDS,
                    width=12,
                    queries=(Query(f"max by (instance) ({select('history_lag_seconds')})", "{{instance}}"),),
                ),
                Lines(
                    title="History lag in records",
                    description="Records of the run log that the history has not read.",
                    unit=Unit.COUNT,
                    width=12,
                    queries=(Query(total("history_lag_records", by="instance"), "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "HTTP API",
            (
                Lines(
                    title="HTTP requests, by route",
                    description="Requests answered, per second.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("http_requests_total", by="method, route"), "{{method}} {{route}}"),),
                ),
                Lines(
                    title="HTTP requests that failed",
                    description="Answers with a status from 400 on, per second. From 500 on it is our side.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            f"{per_second('http_requests_total', code='~[45]..', by='route, code')} or vector(0)",
                            "{{route}} {{code}}",
                        ),
                    ),
                ),
                Lines(
                    title="HTTP duration",
                    description="Request to answer; waits that the client asked for are in it.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "http_request_duration_seconds"), f"p{q * 100:.0f}")
                        for q in (0.5, 0.95, 0.99)
                    ),
                ),
                Lines(
                    title="HTTP duration, p95 by route",
                    description="Request to answer; waits that the client asked for are in it.",
                    unit=Unit.SECONDS,
                    queries=(Query(quantile(0.95, "http_request_duration_seconds", by="route"), "{{route}}"),),
                ),
                Lines(
                    title="Live streams",
                    description="Live update streams that are open: consoles and other listeners.",
                    unit=Unit.COUNT,
                    queries=(Query(total("sse_clients", by="instance"), "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "Policies",
            (
                Lines(
                    title="Pool use",
                    description="Share of a pool's slots with an attempt.",
                    unit=Unit.SHARE,
                    queries=(
                        Query(
                            f"{total('pool_slots_in_use', by='pool')} / {total('pool_slots', by='pool')}", "{{pool}}"
                        ),
                    ),
                ),
                Lines(
                    title="Wait for a rate limit",
                    description="Ready to the attempt's token, waits for breaker and pool included; each process has its own limit.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "rate_limit_wait_seconds", by="limiter"), f"p{q * 100:.0f} {{{{limiter}}}}")
                        for q in (0.5, 0.95)
                    ),
                ),
                Lines(
                    title="Passed a rate limit",
                    description="Attempts that got a token, per second.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("rate_limit_wait_seconds_count", by="limiter"), "{{limiter}}"),),
                ),
                Lines(
                    title="Breakers that are not closed",
                    description="Processes whose breaker is open or tries again.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            total("circuit_breaker_state", state="!closed", by="breaker, state"),
                            "{{breaker}} {{state}}",
                        ),
                    ),
                ),
                Lines(
                    title="Breaker calls",
                    description="What breakers made of calls. Held tasks use up no attempt.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            per_second("circuit_breaker_calls_total", by="breaker, result"), "{{breaker}} {{result}}"
                        ),
                    ),
                ),
                Lines(
                    title="Breaker changes",
                    description="Changes into a state.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            per_second("circuit_breaker_transitions_total", by="breaker, state"),
                            "{{breaker}} {{state}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
