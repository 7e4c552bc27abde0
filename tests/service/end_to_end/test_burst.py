"""A burst far larger than what may be active: memory stays bounded, everything ends; metrics are scraped meanwhile."""

import os
import time

from prometheus_client.parser import text_string_to_metric_families

from headrace.topics.outcome import RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.test_kill import orders
from tests.service.end_to_end.waiting import eventually_now

ORDERS = int(os.environ.get("HEADRACE_BURST", "8000"))
BATCH = 1_000
MEMORY_KIB_MAX = 120 << 10  # 75 MiB are in use; an order more may leave some kilobytes, and must not
FAMILIES = {
    "events": "headrace_events_consumed",
    "runs started": "headrace_runs_started",
    "runs finished": "headrace_runs_finished",
    "runs active": "headrace_runs_active",
    "run duration": "headrace_run_duration_seconds",
    "tasks": "headrace_task_attempts",
    "retries": "headrace_task_retries",
    "task duration": "headrace_task_duration_seconds",
    "append": "headrace_log_append_duration_seconds",
    "read-back": "headrace_log_readback_duration_seconds",
    "breaker": "headrace_circuit_breaker_state",
    "lag": "headrace_kafka_consumer_lag_records",
    "lag in time": "headrace_kafka_consumer_lag_seconds",
}


async def test_memory_is_bounded_under_a_burst_and_metrics_can_be_read_meanwhile(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "burst.py", worker__max_active_runs=200, telemetry__log_level="warning")
    service = await place.spawn().ready()
    async with place.view() as view:
        began = time.monotonic()
        for first in range(0, ORDERS, BATCH):
            batch = orders(range(first, first + BATCH))
            await view.publish("orders", batch, partition=(first // BATCH) % 8)
        scrapes: list[str] = []

        def scraped() -> bool:
            scrapes.append(service.scrape())
            return _value(scrapes[-1], "headrace_runs_finished_total") >= ORDERS // 4

        await eventually_now(scraped, "a quarter of the runs")
        ledger = await view.all_ended(ORDERS, patience_s=180)
        seconds = time.monotonic() - began
        peak = service.memory_peak_kib
        print(f"{backend.kind}: {ORDERS} orders in {seconds:.1f} s, peak memory {peak / 1024:.0f} MiB")
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == ORDERS
        assert peak < MEMORY_KIB_MAX
        _families(scrapes[-1])

        def at_rest() -> bool:  # the gauges of a scrape may be a moment older than its counters
            scrapes.append(service.scrape())
            ended = _value(scrapes[-1], "headrace_runs_finished_total") >= ORDERS
            left = sum(
                _value(scrapes[-1], f"headrace_{gauge}") for gauge in ("runs_active", "kafka_consumer_lag_records")
            )
            return ended and not left

        await eventually_now(at_rest, lambda: f"all ended, none active, no lag: {scrapes[-1]}")
        assert _value(scrapes[-1], "headrace_runs_finished_total") == ORDERS
        assert _value(scrapes[-1], "headrace_events_consumed_total") == ORDERS
    assert service.stop() == 0


def _families(scrape: str) -> None:
    found = {family.name for family in text_string_to_metric_families(scrape)}
    missing = {what: name for what, name in FAMILIES.items() if name not in found}
    assert not missing, sorted(found)
    assert "e2e-gateway" in scrape, "the breaker is named"


def _value(scrape: str, sample: str) -> float:
    return sum(
        one.value for family in text_string_to_metric_families(scrape) for one in family.samples if one.name == sample
    )
