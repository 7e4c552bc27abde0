"""Real scrapes of everything that is told, in both formats."""

import math
import subprocess
from collections.abc import Callable
from shutil import which

import pytest
from msgspec.structs import replace
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from headrace.observability import label
from headrace.observability.accumulator import OTHER
from headrace.observability.expected import Expected
from headrace.observability.exposition import PortErrors
from headrace.observability.forecast import Forecast, WorkflowForecast
from headrace.observability.forecast_trend import Trend
from headrace.observability.forecast_use import Bottleneck, Use
from headrace.observability.metrics import TABLE, Kind
from headrace.observability.prometheus import ERRORS_PER_TASK_MAX, PrometheusObserver, registry
from headrace.observability.snapshot import (
    BreakerNow,
    HistoryNow,
    LagNow,
    LogPartitionNow,
    PoolNow,
    RunState,
    Snapshot,
    StoppedNow,
    TaskState,
    WorkflowNow,
)
from headrace.observability.trace_observer import SpanCounts
from headrace.topics.errors import Cause
from headrace.topics.outcome import RunStatus
from tests.observability.workload import ANCHOR, ONE_OF_EACH, tell_all
from tests.requirement import missing

NOW = Snapshot(
    workflows=(
        WorkflowNow(
            workflow="fulfil",
            runs={RunState.RUNNING: 7, RunState.HELD: 2},
            tasks_in_progress=5,
            tasks_queued={TaskState.HELD_BREAKER: 2},
            oldest_active_run_start_ms=1_700_000_000_500,
        ),
    ),
    timers_pending=3,
    approvals_pending={"fulfil": 2},
    lag=(LagNow(topic="orders", partition=0, group="shop.router", records=12, seconds=0.5),),
    partitions_assigned={"shop.owners": 64},
    breakers=(BreakerNow(breaker="inventory", state=label.BreakerState.OPEN),),
    pools=(PoolNow(pool="mail", slots=8, slots_in_use=8),),
    log_partitions=(LogPartitionNow(partition=3, log_bytes=1000, checkpoint_bytes=70),),
    stopped=(StoppedNow(topic="orders", reason=label.StopReason.TOPIC_REMADE, partitions=1),),
    history=HistoryNow(lag_records=12, lag_seconds=0.5),
    source_backlog_bytes={"orders": 4096},
    dead_letters={"orders.dlq": 3},
    definitions={"loaded": 2},
)

FORECAST = Forecast(
    window_s=300,
    workflows=(
        WorkflowForecast(
            workflow="fulfil",
            backlog=30,
            arrivals=Trend(per_s=12, slope=0.1, holds_s=300),
            served_per_s=10,
            capacity_per_s=10,
            concurrency=7,
            drain_s=math.inf,
            breach_s=90,
        ),
    ),
    uses=(Use("pool:mail", 1.0), Use("cpu", 0.25), Use("task:charge", 0.01)),
    bottleneck=Bottleneck(resource="pool:mail", relief=4.0, next="cpu"),
    workers_needed=1.7,
)

Scrape = Callable[[PrometheusObserver], dict[str, Metric]]


def text(observer: PrometheusObserver) -> dict[str, Metric]:
    scraped = generate_latest(registry(observer)).decode()
    return {metric.name: metric for metric in parse_text(scraped)}


def openmetrics(observer: PrometheusObserver) -> dict[str, Metric]:
    scraped = generate_openmetrics(registry(observer)).decode()
    return {metric.name: metric for metric in parse_openmetrics(scraped)}


def value(metrics: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [
        each.value
        for metric in metrics.values()
        for each in metric.samples
        if each.name == f"headrace_{sample}" and labels.items() <= each.labels.items()
    ]
    assert len(found) == 1, (sample, labels, found)
    return found[0]


@pytest.fixture
def told() -> PrometheusObserver:
    observer = PrometheusObserver(snapshots=lambda: NOW, version="0.1.0", backend="embedded")
    observer.show(lambda: FORECAST)
    observer.show_spans(SpanCounts())
    observer.show_port_errors(PortErrors())
    tell_all(observer)
    return observer


@pytest.mark.parametrize("scrape", [text, openmetrics])
def test_every_family_has_a_sample_with_its_labels_after_one_of_each(scrape: Scrape, told: PrometheusObserver) -> None:
    metrics = scrape(told)
    samples = [sample for metric in metrics.values() for sample in metric.samples]
    for family in TABLE:
        suffix = "_count" if family.kind is Kind.HISTOGRAM else ""
        found = [sample for sample in samples if sample.name == family.full_name + suffix]
        assert found, family.full_name
        for sample in found:
            assert set(sample.labels) == set(family.labels)


def test_types_are_those_of_the_table(told: PrometheusObserver) -> None:
    metrics = openmetrics(told)
    for family in TABLE:
        shown = metrics[family.full_name.removesuffix("_total").removesuffix("_info")]
        assert shown.type == family.kind
        assert shown.documentation == family.help


def test_values_are_in_base_units(told: PrometheusObserver) -> None:
    metrics = text(told)
    assert value(metrics, "events_consumed_total", topic="orders") == 2
    assert value(metrics, "event_size_bytes_sum", topic="orders") == 2100
    assert value(metrics, "event_delay_seconds_sum", topic="orders") == pytest.approx(0.074)
    assert value(metrics, "event_match_duration_seconds_count") == 2
    assert value(metrics, "event_match_duration_seconds_sum") == pytest.approx(0.00004)
    assert value(metrics, "run_duration_seconds_bucket", workflow="fulfil", status="failed", le="0.05") == 0
    assert value(metrics, "run_duration_seconds_bucket", workflow="fulfil", status="failed", le="0.1") == 1
    assert value(metrics, "task_attempts_total", workflow="fulfil", task="charge", result="failed") == 1
    assert value(metrics, "task_retries_total", workflow="fulfil", task="charge", error="ConnectionError") == 1
    assert value(metrics, "log_written_bytes_total", kind="outcome") == 4000
    assert value(metrics, "recovery_records_total") == 120
    assert value(metrics, "approval_wait_seconds_sum", workflow="fulfil", decision="approved") == 39.4
    assert value(metrics, "ownership_changes_total", reason="lost_newer_announce") == 1
    assert value(metrics, "kafka_produced_records_total", topic="shop.runs", result="acknowledged") == 20


def test_gauges_show_the_state_and_forget_what_is_gone() -> None:
    state = [NOW]
    observer = PrometheusObserver(snapshots=lambda: state[0])
    metrics = text(observer)
    assert value(metrics, "runs_active", workflow="fulfil", state="running") == 7
    assert value(metrics, "oldest_active_run_start_timestamp_seconds", workflow="fulfil") == 1_700_000_000.5
    assert value(metrics, "kafka_consumer_lag_seconds", topic="orders", partition="0", group="shop.router") == 0.5
    assert value(metrics, "circuit_breaker_state", breaker="inventory", state="open") == 1
    assert value(metrics, "approvals_pending", workflow="fulfil") == 2
    assert value(metrics, "circuit_breaker_state", breaker="inventory", state="closed") == 0
    before = value(metrics, "metric_series")
    state[0] = Snapshot()
    metrics = text(observer)
    assert metrics["headrace_runs_active"].samples == []
    assert value(metrics, "timers_pending") == 0
    assert value(metrics, "metric_series") < before


def test_a_forecast_is_shown_with_what_limits_and_what_does_not(told: PrometheusObserver) -> None:
    for metrics in (text(told), openmetrics(told)):
        assert value(metrics, "forecast_backlog_drain_seconds", workflow="fulfil") == math.inf
        assert value(metrics, "forecast_backlog_breach_seconds", workflow="fulfil") == 90
        assert value(metrics, "forecast_bottleneck", resource="pool:mail") == 1
        assert value(metrics, "forecast_bottleneck", resource="cpu") == 0
        assert value(metrics, "forecast_bottleneck_relief_ratio", resource="pool:mail") == 4
        assert value(metrics, "forecast_workers_needed") == 1.7
        shares = metrics["headrace_forecast_utilization_ratio"].samples
        assert {each.labels["resource"] for each in shares} == {"pool:mail", "cpu"}


def test_gauges_have_a_budget_too_and_add_up_what_is_folded() -> None:
    lag = tuple(LagNow(topic=f"t{n}", partition=0, group="g", records=1, seconds=0) for n in range(1000))
    observer = PrometheusObserver(snapshots=lambda: Snapshot(lag=lag), series_budget=400)
    for _ in range(3):  # from scrape to scrape the budget does not leak
        metrics = text(observer)
        shown = metrics["headrace_kafka_consumer_lag_records"].samples
        assert sum(sample.value for sample in shown) == 1000
        assert len(shown) <= 101
        assert value(metrics, "kafka_consumer_lag_records", topic=OTHER) > 800


def test_exemplars_name_the_trace_of_a_sampled_run(told: PrometheusObserver) -> None:
    buckets = openmetrics(told)["headrace_run_duration_seconds"].samples
    (shown,) = [sample.exemplar for sample in buckets if sample.exemplar is not None]
    assert shown.labels == {"trace_id": ANCHOR[3:35]}
    assert shown.value == pytest.approx(0.084)
    unsampled = PrometheusObserver()
    unsampled.run_finished(replace(ONE_OF_EACH["run_finished"], traceparent=ANCHOR[:-1] + "0"))
    assert all(sample.exemplar is None for metric in openmetrics(unsampled).values() for sample in metric.samples)


def test_exception_classes_made_at_run_time_do_not_become_series_without_end() -> None:
    observer = PrometheusObserver()
    for number in range(1000):
        observer.attempt_ended(replace(ONE_OF_EACH["attempt_ended"], error=f"Error{number}"))
    shown = text(observer)["headrace_task_retries"].samples
    assert len(shown) == ERRORS_PER_TASK_MAX + 1
    assert sum(sample.value for sample in shown) == 1000


def test_a_timed_out_attempt_without_an_exception_is_counted_by_its_cause() -> None:
    observer = PrometheusObserver()
    observer.attempt_ended(
        replace(ONE_OF_EACH["attempt_ended"], error="", cause=Cause.TIMED_OUT, ending=label.Ending.TIMED_OUT)
    )
    assert value(text(observer), "task_retries_total", error="timed_out") == 1


@pytest.mark.parametrize("scrape", [text, openmetrics])
@pytest.mark.parametrize("name", ['"quoted"', "two\nlines", "back\\slash", "\ud800", "x" * 5000, "ümläut", "\x00"])
def test_hostile_names_make_valid_expositions(name: str, scrape: Scrape) -> None:
    observer = PrometheusObserver(
        snapshots=lambda: Snapshot(workflows=(WorkflowNow(workflow=name, runs={RunState.RUNNING: 1}),))
    )
    for _ in range(3):
        observer.run_started(replace(ONE_OF_EACH["run_started"], workflow=name))
    metrics = scrape(observer)
    (started,) = [each for each in metrics["headrace_runs_started"].samples if each.name.endswith("_total")]
    assert started.value == 3
    assert len(started.labels["workflow"]) <= 128
    assert len(metrics["headrace_runs_active"].samples) == 1


def test_ten_thousand_workflows_do_not_become_series_without_end() -> None:
    told_of: list[str] = []
    observer = PrometheusObserver(series_budget=1000, exceeded=told_of.append)
    started = ONE_OF_EACH["run_started"]
    for number in range(10_000):
        observer.run_started(replace(started, workflow=f"workflow-{number}"))
    metrics = text(observer)
    samples = metrics["headrace_runs_started"].samples
    counts = [each for each in samples if each.name.endswith("_total")]
    assert sum(each.value for each in counts) == 10_000  # nothing is lost, it is only not told apart
    assert len(counts) <= 1000
    assert len(told_of) == 1
    assert value(metrics, "metric_series_folded_total") > 9000


def test_clocks_that_disagree_never_make_a_sum_fall() -> None:
    observer = PrometheusObserver()
    observer.run_started(replace(ONE_OF_EACH["run_started"], start_delay_ms=-50.0))
    assert value(text(observer), "run_start_delay_seconds_sum", workflow="fulfil") == 0


def test_buckets_can_be_overridden() -> None:
    observer = PrometheusObserver(buckets={"run_duration_seconds": (1.0, 2.0)})
    observer.run_finished(ONE_OF_EACH["run_finished"])
    bounds = [
        sample.labels["le"]
        for sample in text(observer)["headrace_run_duration_seconds"].samples
        if "le" in sample.labels
    ]
    assert bounds == ["1.0", "2.0", "+Inf"]


def test_the_process_shows_itself(told: PrometheusObserver) -> None:
    assert "python_gc_collections" in text(told)
    assert value(text(told), "build_info", version="0.1.0", backend="embedded") == 1


def test_promtool_finds_nothing(told: PrometheusObserver) -> None:
    promtool = which("promtool")
    if promtool is None:
        missing("promtool is not installed: apt install prometheus")
    scraped = generate_latest(registry(told))
    checked = subprocess.run([promtool, "check", "metrics"], input=scraped, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_what_alerts_ask_for_begins_at_0() -> None:
    observer = PrometheusObserver()
    observer.expect(
        Expected(
            workflows=["fulfil"],
            handlers=["charge"],
            breakers=["inventory"],
            sources=["orders"],
            outputs=["orders.fulfilled"],
            starts=[("orders", "fulfil")],
            emits=[("orders.fulfilled", "fulfil")],
            group="shop.members",
        )
    )
    metrics = text(observer)
    for status in RunStatus:
        assert value(metrics, "runs_finished_total", workflow="fulfil", status=status) == 0
    assert value(metrics, "run_start_delay_seconds_count", workflow="fulfil") == 0
    assert value(metrics, "run_start_delay_seconds_bucket", workflow="fulfil", le="5.0") == 0
    assert value(metrics, "runs_parked_total", workflow="fulfil", reason="poison") == 0
    assert value(metrics, "dead_letters_total", topic="orders", workflow="", reason="decode") == 0
    for stage in ("match", "start"):
        assert value(metrics, "dead_letters_total", topic="orders", workflow="fulfil", reason=stage) == 0
    assert value(metrics, "dead_letters_total", topic="orders.fulfilled", workflow="fulfil", reason="emit") == 0
    assert value(metrics, "outputs_refused_total", topic="orders.fulfilled") == 0
    assert value(metrics, "event_loop_blocked_total", handler="charge") == 0
    assert value(metrics, "kafka_rebalances_total", group="shop.members", event="assigned") == 0
    assert value(metrics, "circuit_breaker_transitions_total", breaker="inventory", state="open") == 0
    observer.run_finished(ONE_OF_EACH["run_finished"])
    assert value(text(observer), "runs_finished_total", workflow="fulfil", status="failed") == 1


def test_series_that_begin_at_0_leave_half_of_the_budget_to_what_happens() -> None:
    observer = PrometheusObserver(series_budget=1000)
    observer.expect(Expected(workflows=[f"w{number}" for number in range(10_000)], group="shop.members"))
    assert 350 < observer._budget.series <= 375  # three fourths of the budget are for what is counted
    assert value(text(observer), "runs_finished_total", workflow="w0", status="failed") == 0
    observer.run_finished(replace(ONE_OF_EACH["run_finished"], workflow="late"))
    assert value(text(observer), "runs_finished_total", workflow="late") == 1


def test_the_four_histograms_that_users_click_have_exemplars(told: PrometheusObserver) -> None:
    shown = {
        name
        for name, metric in openmetrics(told).items()
        if any(sample.exemplar is not None for sample in metric.samples)
    }
    assert shown == {
        "headrace_run_duration_seconds",
        "headrace_run_start_delay_seconds",
        "headrace_run_result_delay_seconds",
        "headrace_task_duration_seconds",
    }
