"""The Prometheus observer: hooks in, families out.

Writing is plain dicts and lists (`accumulator.py`); prometheus_client's part is the exposition: `PrometheusObserver`
is a collector in a registry of its own, and `prometheus_families.py` makes what is collected. Hooks run on the event
loop's thread; `collect` runs in the thread that answers a scrape. Never: an id or a user's value as a label.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headrace.observability import told_event, told_log, told_process, told_run
from headrace.observability.accumulator import Budget, Cell, Counts, Distribution, Labels, folded
from headrace.observability.expected import Expected, expected_series
from headrace.observability.forecast import Forecast
from headrace.observability.forecast_gauges import forecast_gauges
from headrace.observability.forecast_sample import Totals, Work
from headrace.observability.label import LogKind, MissReason, PortError, SpanResult
from headrace.observability.metrics import BY_NAME, TABLE, Family, Kind
from headrace.observability.prometheus_families import counter_family, gauge_family, histogram_family, info_family
from headrace.observability.silent import Silent
from headrace.observability.snapshot import EMPTY, Snapshots
from headrace.observability.snapshot_gauges import snapshot_gauges
from headrace.topics.trace_context import trace_id_in

ERRORS_PER_TASK_MAX: Final = 10
"""Distinct `error` labels of one task: exception classes can be made at run time."""
OTHER_ERROR: Final = "(other)"
GAUGE_SHARE: Final = 4
"""One fourth of the series budget is for gauges: mostly lag, by partition."""

_OVER_HTTP: Final = "(http)"  # in place of a topic
_SAMPLED_ENDINGS: Final = frozenset("13579bdf")


class PrometheusObserver(Silent, Collector):
    """Counts for Prometheus. One per process.

    `snapshots` is asked at each collection, in the collecting thread: give it one that is safe there
    (`latest.Latest`). `buckets` overrides those of the table by family name without prefix. `exceeded` is called
    once, when the series budget is used up.
    """

    def __init__(
        self,
        *,
        snapshots: Snapshots = lambda: EMPTY,
        version: str = "",
        backend: str = "",
        series_budget: int = 5000,
        buckets: Mapping[str, tuple[float, ...]] | None = None,
        exceeded: Callable[[str], None] | None = None,
    ) -> None:
        self.snapshots = snapshots
        self._forecasts: Callable[[], Forecast | None] = lambda: None
        self._spans: Callable[[], Mapping[SpanResult, int]] = dict
        self._port_errors: Callable[[], Mapping[PortError, int]] = dict
        self._info = {"version": version, "python": platform.python_version(), "backend": backend}
        # Two budgets, as two threads open series: what happened here, what is (in a scrape) there.
        self._budget = Budget(series_budget - series_budget // GAUGE_SHARE, exceeded)
        self._gauge_budget = Budget(series_budget // GAUGE_SHARE, exceeded)
        self._counts: dict[str, Counts] = {}
        self._distributions: dict[str, Distribution] = {}
        self._gauges: dict[str, set[Labels]] = {}
        self._errors: dict[tuple[str, str], set[str]] = {}
        bounds = buckets or {}
        for family in TABLE:
            if family.kind is Kind.COUNTER:
                self._counts[family.name] = Counts(family, self._budget)
            elif family.kind is Kind.HISTOGRAM:
                self._distributions[family.name] = Distribution(family, self._budget, bounds.get(family.name))
            elif family.kind is Kind.GAUGE:
                self._gauges[family.name] = set()
        self._bind()

    def _bind(self) -> None:
        """One attribute per family: hooks are hot, and a look-up by name is half of their cost."""
        counts, distributions = self._counts, self._distributions
        self._events_consumed = counts["events_consumed_total"]
        self._event_size = distributions["event_size_bytes"]
        self._event_delay = distributions["event_delay_seconds"]
        self._events_discarded = counts["events_discarded_total"]
        self._event_match = distributions["event_match_duration_seconds"].cell()
        self._contexts_refused = counts["trace_contexts_refused_total"]
        self._dead_letters = counts["dead_letters_total"]
        self._redrives = counts["dead_letter_redrives_total"]
        self._runs_started = counts["runs_started_total"]
        self._runs_finished = counts["runs_finished_total"]
        self._run_duration = distributions["run_duration_seconds"]
        self._run_start_delay = distributions["run_start_delay_seconds"]
        self._run_result_delay = distributions["run_result_delay_seconds"]
        self._runs_parked = counts["runs_parked_total"]
        self._task_attempts = counts["task_attempts_total"]
        self._task_retries = counts["task_retries_total"]
        self._task_duration = distributions["task_duration_seconds"]
        self._task_start_delay = distributions["task_start_delay_seconds"]
        self._compensations = counts["compensations_total"]
        self._abandoned = counts["handlers_abandoned_total"]
        self._misfires = counts["schedule_misfires_total"]
        self._timer_delay = distributions["timer_fire_delay_seconds"].cell()
        self._approval_wait = distributions["approval_wait_seconds"]
        self._resent = counts["outputs_resent_total"]
        self._refused = counts["outputs_refused_total"]
        self._rebalances = counts["kafka_rebalances_total"]
        self._rebalance_duration = distributions["kafka_rebalance_duration_seconds"]
        self._produced = counts["kafka_produced_records_total"]
        self._produce_duration = distributions["kafka_produce_duration_seconds"]
        self._append_duration = distributions["log_append_duration_seconds"].cell()
        self._readback_duration = distributions["log_readback_duration_seconds"].cell()
        self._commit_records = distributions["log_commit_records"].cell()
        self._written_bytes = counts["log_written_bytes_total"]
        self._skipped = counts["log_skipped_records_total"]
        self._recovery_duration = distributions["recovery_duration_seconds"].cell()
        self._recovery_records = counts["recovery_records_total"]
        self._ownership = counts["ownership_changes_total"]
        self._transitions = counts["circuit_breaker_transitions_total"]
        self._breaker_calls = counts["circuit_breaker_calls_total"]
        self._limit_wait = distributions["rate_limit_wait_seconds"]
        self._loop_delay = distributions["event_loop_delay_seconds"].cell()
        self._loop_blocked = counts["event_loop_blocked_total"]
        self._loop_fenced = counts["event_loop_fenced_total"]
        self._loop_fenced.add((), 0)
        self._checkpoints_failed = counts["checkpoints_failed_total"]
        self._checkpoints_failed.add((), 0)
        self._http_requests = counts["http_requests_total"]
        self._http_duration = distributions["http_request_duration_seconds"]
        self._resources: dict[Labels, float] = {}

    def expect(self, expected: Expected) -> None:
        """Let these series begin at 0, as far as half of the budget goes. Before any hook is called."""
        for name, labels in expected_series(expected):
            counts = self._counts.get(name)
            if 2 * (self._budget.series + BY_NAME[name].series) > self._budget.series_max:
                return
            if counts is not None:
                counts.add(labels, 0)
            else:
                self._distributions[name].cell(labels)

    # --- hooks --------------------------------------------------------------------------------------------------------

    def events_consumed(self, consumed: told_event.EventsConsumed, /) -> None:
        labels = (consumed.topic,)
        self._events_consumed.add(labels, len(consumed.sizes_bytes))
        sizes, delays = self._event_size.cell(labels), self._event_delay.cell(labels)
        for size in consumed.sizes_bytes:
            sizes.observe(size)
        for delay in consumed.delays_ms:
            delays.observe(_seconds(delay))

    def events_matched(self, matched: told_event.EventsMatched, /) -> None:
        if matched.records:
            self._event_match.observe(_seconds(matched.duration_ms / matched.records), matched.records)
        if matched.contexts_refused:
            self._contexts_refused.add((matched.topic,), matched.contexts_refused)

    def event_discarded(self, discarded: told_event.EventDiscarded, /) -> None:
        self._events_discarded.add((discarded.topic, discarded.reason), discarded.records)

    def event_dead_lettered(self, lettered: told_event.EventDeadLettered, /) -> None:
        self._dead_letters.add((lettered.topic, lettered.workflow, lettered.stage), lettered.records)

    def record_redriven(self, redriven: told_event.RecordRedriven, /) -> None:
        self._redrives.add((redriven.result,))

    def run_started(self, started: told_run.RunStarted, /) -> None:
        self._runs_started.add((started.workflow, started.trigger))
        if started.start_delay_ms is not None:
            cell = self._run_start_delay.cell((started.workflow,))
            delay = _seconds(started.start_delay_ms)
            cell.observe(delay)
            if started.traceparent is not None:
                _exemplify(cell, delay, started.traceparent, started.started_at_ms)

    def run_finished(self, finished: told_run.RunFinished, /) -> None:
        labels = (finished.workflow, finished.status)
        self._runs_finished.add(labels)
        cell = self._run_duration.cell(labels)
        duration = _seconds(finished.duration_ms)
        cell.observe(duration)
        if finished.traceparent is not None:
            _exemplify(cell, duration, finished.traceparent, finished.started_at_ms + finished.duration_ms)

    def run_parked(self, parked: told_run.RunParked, /) -> None:
        self._runs_parked.add((parked.workflow, parked.reason))

    def attempt_ended(self, ended: told_run.AttemptEnded, /) -> None:
        workflow, task = ended.workflow, ended.handler
        self._task_attempts.add((workflow, task, ended.ending))
        duration = _seconds(ended.duration_ms)
        cell = self._task_duration.cell((workflow, task))
        cell.observe(duration)
        self._task_start_delay.observe((workflow,), _seconds(ended.start_delay_ms))
        if ended.traceparent is not None:
            _exemplify(cell, duration, ended.traceparent, ended.started_at_ms + ended.duration_ms)
        if ended.retry_after_ms is not None:
            self._task_retries.add((workflow, task, self._error(workflow, task, ended.error or str(ended.cause))))

    def compensation_ended(self, ended: told_run.CompensationEnded, /) -> None:
        self._compensations.add((ended.workflow, ended.ending))

    def handler_abandoned(self, abandoned: told_run.HandlerAbandoned, /) -> None:
        self._abandoned.add((abandoned.workflow, abandoned.handler, abandoned.reason))

    def schedule_missed(self, missed: told_run.ScheduleMissed, /) -> None:
        if missed.reason is MissReason.MISFIRE:
            self._misfires.add((missed.workflow,), missed.slots)

    def timer_fired(self, fired: told_run.TimerFired, /) -> None:
        self._timer_delay.observe(_seconds(fired.late_ms))

    def approval_decided(self, decided: told_run.ApprovalDecided, /) -> None:
        waited = _seconds(decided.decided_at_ms - decided.requested_at_ms)
        self._approval_wait.observe((decided.workflow, decided.ending), waited)

    def output_sent(self, sent: told_event.OutputSent, /) -> None:
        if sent.result_delay_ms is not None:
            cell = self._run_result_delay.cell((sent.workflow,))
            delay = _seconds(sent.result_delay_ms)
            cell.observe(delay)
            if sent.traceparent is not None:
                _exemplify(cell, delay, sent.traceparent, time.time())

    def output_resent(self, resent: told_event.OutputResent, /) -> None:
        self._resent.add((resent.topic,), resent.records)

    def output_refused(self, refused: told_event.OutputRefused, /) -> None:
        self._refused.add((refused.topic,))

    def partition_taken(self, taken: told_log.PartitionTaken, /) -> None:
        self._ownership.add((f"taken_{taken.reason}",))
        self._recovery_duration.observe(_seconds(taken.duration_ms))
        self._recovery_records.add((), taken.records)

    def partition_released(self, released: told_log.PartitionReleased, /) -> None:
        self._ownership.add((f"released_{released.reason}",))

    def partition_lost(self, lost: told_log.PartitionLost, /) -> None:
        self._ownership.add((f"lost_{lost.reason}",))

    def outcome_skipped(self, skipped: told_log.OutcomeSkipped, /) -> None:
        self._skipped.add((skipped.reason,), skipped.records)

    def appended(self, appended: told_log.Appended, /) -> None:
        self._append_duration.observe(_seconds(appended.duration_ms))
        self._commit_records.observe(appended.records)

    def log_folded(self, folded: told_log.LogFolded, /) -> None:
        for kind, size in folded.sizes_bytes.items():
            self._written_bytes.add((kind,), size)

    def read_back(self, read_back: told_log.ReadBack, /) -> None:
        self._readback_duration.observe(_seconds(read_back.duration_ms))

    def produced(self, produced: told_log.Produced, /) -> None:
        self._produced.add((produced.topic, produced.result), produced.records)
        self._produce_duration.observe((produced.topic,), _seconds(produced.duration_ms))

    def rebalanced(self, rebalanced: told_log.Rebalanced, /) -> None:
        self._rebalances.add((rebalanced.group, rebalanced.event))
        if rebalanced.duration_ms is not None:
            self._rebalance_duration.observe((rebalanced.group,), _seconds(rebalanced.duration_ms))

    def breaker_changed(self, changed: told_process.BreakerChanged, /) -> None:
        self._transitions.add((changed.breaker, changed.after))

    def breaker_called(self, called: told_process.BreakerCalled, /) -> None:
        self._breaker_calls.add((called.breaker, called.result), called.calls)

    def rate_limit_passed(self, passed: told_process.RateLimitPassed, /) -> None:
        self._limit_wait.observe((passed.limiter,), _seconds(passed.wait_ms))

    def loop_delayed(self, delayed: told_process.LoopDelayed, /) -> None:
        self._loop_delay.observe(_seconds(delayed.delay_ms))

    def loop_blocked(self, blocked: told_process.LoopBlocked, /) -> None:
        # The watchdog's thread: the only writer of this family.
        self._loop_blocked.add((blocked.handler,))

    def http_answered(self, answered: told_process.HttpAnswered, /) -> None:
        labels = (answered.method, answered.route, str(answered.code))
        self._http_requests.add(labels)
        self._http_duration.observe(labels, _seconds(answered.duration_ms))
        if answered.context_refused:
            self._contexts_refused.add((_OVER_HTTP,))

    def checkpoint_failed(self, failed: told_log.CheckpointFailed, /) -> None:
        self._checkpoints_failed.add(())

    def loop_fenced(self, fenced: told_process.LoopFenced, /) -> None:
        self._loop_fenced.add(())

    def resource_measured(self, measured: told_process.ResourceMeasured, /) -> None:
        self._resources[measured.resource,] = measured.used / measured.limit

    def _error(self, workflow: str, task: str, error: str) -> str:
        seen = self._errors.setdefault((workflow, task), set()) if len(self._errors) < self._budget.series_max else None
        if seen is None:
            return OTHER_ERROR
        if error in seen:
            return error
        if len(seen) >= ERRORS_PER_TASK_MAX:
            return OTHER_ERROR
        seen.add(error)
        return error

    # --- forecast -----------------------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """The counters that a forecast needs; from any thread."""
        started, finished = dict[str, float](), dict[str, float]()
        for (workflow, _), count in dict(self._runs_started.values).items():
            started[workflow] = started.get(workflow, 0.0) + count
        for (workflow, _), count in dict(self._runs_finished.values).items():
            finished[workflow] = finished.get(workflow, 0.0) + count
        return Totals(
            started=started,
            finished=finished,
            tasks={(labels[0], labels[1]): _work(cell) for labels, cell in dict(self._task_duration.cells).items()},
            consumed={labels[0]: count for labels, count in dict(self._events_consumed.values).items()},
            appends=_work(self._append_duration),
            read_backs=_work(self._readback_duration),
            records=self._commit_records.total,
            outcome_bytes=self._written_bytes.values.get((LogKind.OUTCOME,), 0.0),
        )

    def show(self, forecasts: Callable[[], Forecast | None]) -> None:
        """Where to ask for the newest forecast at each scrape, in the scraping thread."""
        self._forecasts = forecasts

    def show_spans(self, counts: Callable[[], Mapping[SpanResult, int]]) -> None:
        """Where to ask for the counts of spans at each scrape, in the scraping thread."""
        self._spans = counts

    def show_port_errors(self, counts: Callable[[], Mapping[PortError, int]]) -> None:
        """Where to ask for the metrics port's errors at each scrape, in the scraping thread."""
        self._port_errors = counts

    # --- scrape -------------------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of the table; those without a series yet show help and type alone."""
        gauges = snapshot_gauges(self.snapshots()) | forecast_gauges(self._forecasts())
        gauges["resource_used_ratio"] = list(dict(self._resources).items())
        for result, count in self._spans().items():
            self._counts["trace_spans_total"].values[result,] = count
        for reason, count in self._port_errors().items():
            self._counts["metrics_port_errors_total"].values[reason,] = count
        for family in TABLE:
            if family.name.startswith("metric_series"):
                continue
            match family.kind:
                case Kind.COUNTER:
                    yield counter_family(family, self._counts[family.name].values)
                case Kind.HISTOGRAM:
                    yield histogram_family(family, self._distributions[family.name])
                case Kind.GAUGE:
                    yield self._gauge(family, gauges.get(family.name, ()))
                case Kind.INFO:
                    yield info_family(family, self._info)
        folded_series = self._budget.folded + self._gauge_budget.folded
        yield counter_family(BY_NAME["metric_series_folded_total"], {(): folded_series})
        yield self._gauge(BY_NAME["metric_series"], [((), self._budget.series + self._gauge_budget.series)])

    def _gauge(self, family: Family, rows: Iterable[tuple[Labels, float]]) -> Metric:
        """A gauge from state.

        Rows whose labels were folded together are added up; rows that are gone give their room back.
        """
        held, shown = self._gauges[family.name], dict[Labels, float]()
        for labels, value in rows:
            known = folded(family, labels, lambda at: at in held or at in shown, self._gauge_budget)
            shown[known] = shown.get(known, 0) + value
        self._gauge_budget.series -= len(held - shown.keys())
        self._gauges[family.name] = set(shown)
        return gauge_family(family, shown)


def registry(observer: PrometheusObserver) -> CollectorRegistry:
    """A registry with our families and the process's own (CPU, memory, descriptors, garbage collection)."""
    made = CollectorRegistry(auto_describe=False)
    made.register(observer)
    ProcessCollector(registry=made)
    GCCollector(registry=made)
    return made


def _seconds(duration_ms: float) -> float:
    """Never below 0: clocks of several machines meet in a delay, and a sum that falls looks like a restart."""
    return duration_ms / 1000 if duration_ms > 0 else 0.0


def _exemplify(cell: Cell, value: float, traceparent: str, at_ms: float) -> None:
    if traceparent[-1:] in _SAMPLED_ENDINGS:
        cell.exemplify(value, trace_id_in(traceparent), at_ms / 1000)


def _work(cell: Cell) -> Work:
    return Work(count=sum(cell.counts), seconds=cell.total)
