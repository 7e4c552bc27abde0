"""Forecasts against a process whose rates are known, and against how it went on. The errors are in docs/forecast.md."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable

import pytest

from headrace.observability.forecast import Forecast, Forecaster, WorkflowForecast
from headrace.observability.forecast_sample import Facts, Sample, Totals, Work, WorkflowAt
from headrace.observability.forecast_use import RELIEF_MAX
from tests.observability.queue_process import FACTS, QueueProcess

SERVERS, MEAN_S = 10, 0.5
CAPACITY = SERVERS / MEAN_S
SEEDS = range(int(os.environ.get("HEADRACE_FORECAST_SEEDS", "10")))  # the page shows 100


def process(seed: int, arrivals: Callable[[float], float], arrivals_max: float) -> QueueProcess:
    return QueueProcess(seed, arrivals=arrivals, arrivals_max=arrivals_max, servers=SERVERS, mean_s=MEAN_S)


def watched(queue: QueueProcess, until_s: float) -> tuple[Forecast, WorkflowForecast]:
    forecaster = Forecaster(FACTS)
    while queue.now_s < until_s:
        queue.run_until(queue.now_s + 5)
        forecaster.add(queue.sample())
    forecast = forecaster.forecast()
    assert forecast is not None
    return forecast, forecast.workflows[0]


def error(found: float | None, truth: float) -> float:
    """Relative; a forecast of "never" counts as ten times too much."""
    return 9.0 if found is None or math.isinf(found) else abs(found / truth - 1)


def ninth_of_ten(errors: list[float]) -> float:
    return sorted(errors)[len(errors) * 9 // 10 - 1]


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.9])
def test_rates_of_a_steady_queue(load: float) -> None:
    arrivals: list[float] = []
    capacity: list[float] = []
    workers: list[float] = []
    for seed in SEEDS:
        forecast, flow = watched(process(seed, lambda _: load * CAPACITY, CAPACITY), 300)
        arrivals.append(error(flow.arrivals.per_s, load * CAPACITY))
        capacity.append(error(flow.capacity_per_s, CAPACITY))
        workers.append(error(forecast.workers_needed, load / 0.7))
    print(
        f"steady {load}:", *(f"{statistics.median(e):.3f} {ninth_of_ten(e):.3f}" for e in (arrivals, capacity, workers))
    )
    assert statistics.median(arrivals) < 0.03
    assert statistics.median(capacity) < 0.08
    assert ninth_of_ten(capacity) < 0.15
    assert statistics.median(workers) < 0.06


@pytest.mark.parametrize(("after", "median", "ninth"), [(0.3, 0.08, 0.25), (0.5, 0.10, 0.3), (0.7, 0.15, 0.6)])
def test_when_a_burst_is_worked_off(after: float, median: float, ninth: float) -> None:
    """Three times what can be served for two minutes, then less: told a minute later."""
    errors: list[float] = []
    for seed in SEEDS:
        queue = process(seed, lambda at_s: 3 * CAPACITY if at_s < 120 else after * CAPACITY, 3 * CAPACITY)
        _, flow = watched(queue, 180)
        while queue.waiting:
            queue.run_until(queue.now_s + 0.5)
        errors.append(error(flow.drain_s, queue.now_s - 180))
    print(f"drain {after}: {statistics.median(errors):.3f} {ninth_of_ten(errors):.3f}")
    assert statistics.median(errors) < median
    assert ninth_of_ten(errors) < ninth


@pytest.mark.parametrize(
    ("load", "watched_s", "median", "ninth"), [(1.2, 120, 0.3, 0.6), (1.3, 60, 0.2, 0.6), (1.5, 60, 0.2, 0.5)]
)
def test_when_starts_will_wait_too_long(load: float, watched_s: float, median: float, ninth: float) -> None:
    errors: list[float] = []
    for seed in SEEDS:
        queue = process(seed, lambda _: load * CAPACITY, load * CAPACITY)
        _, flow = watched(queue, watched_s)
        assert flow.drain_s == math.inf or flow.drain_s > FACTS.delay_limit_s
        while len(queue.waiting) < FACTS.delay_limit_s * CAPACITY:
            queue.run_until(queue.now_s + 0.5)
        errors.append(error(flow.breach_s, queue.now_s - watched_s))
    print(f"breach {load}: {statistics.median(errors):.3f} {ninth_of_ten(errors):.3f}")
    assert statistics.median(errors) < median
    assert ninth_of_ten(errors) < ninth


def test_a_load_that_rises_is_seen_before_it_is_too_much() -> None:
    """From 8 to 40 a second in ten minutes; after three of them, 17, nothing waits yet, and 20 can be served."""
    errors: list[float] = []
    for seed in SEEDS:
        queue = process(seed, lambda at_s: min(40.0, 8 + 0.05 * at_s), 40)
        _, flow = watched(queue, 180)
        while len(queue.waiting) < FACTS.delay_limit_s * CAPACITY:
            queue.run_until(queue.now_s + 0.5)
        errors.append(error(flow.breach_s, queue.now_s - 180))
    print(f"ramp: {statistics.median(errors):.3f} {ninth_of_ten(errors):.3f}")
    assert statistics.median(errors) < 0.35


def test_a_burst_is_no_trend_and_is_seen_within_half_a_minute() -> None:
    found: list[float] = []
    for seed in SEEDS:
        queue = process(seed, lambda at_s: 2 * CAPACITY if at_s > 270 else 0.2 * CAPACITY, 2 * CAPACITY)
        found.append(watched(queue, 300)[1].arrivals.per_s)
    print(f"burst: {statistics.median(found):.1f} of {2 * CAPACITY}")
    assert statistics.median(found) == pytest.approx(2 * CAPACITY, rel=0.15)


def test_a_full_pool_is_the_bottleneck_and_the_cpu_would_be_next() -> None:
    forecast, _ = watched(process(1, lambda _: 1.5 * CAPACITY, 30), 120)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "pool:till"
    assert forecast.bottleneck.next == "cpu"
    assert forecast.bottleneck.relief == pytest.approx(10, rel=0.1)  # the CPU is busy for a tenth


def test_a_calm_process_has_no_bottleneck() -> None:
    forecast, flow = watched(process(1, lambda _: 0.3 * CAPACITY, 10), 120)
    assert forecast.bottleneck is None
    assert (flow.drain_s, flow.breach_s) == (0.0, math.inf)


def test_littles_law_holds_for_the_task() -> None:
    forecast, _ = watched(process(3, lambda _: 0.6 * CAPACITY, 20), 300)
    (task,) = forecast.tasks
    assert task.concurrency == pytest.approx(task.per_s * task.mean_s)
    assert task.concurrency == pytest.approx(0.6 * SERVERS, rel=0.2)


# --- cases that a queue alone does not show ---------------------------------------------------------------------------


def moments(facts: Facts, count: int = 14, **at: Callable[[float], object]) -> Forecast:
    """A forecast of samples whose fields are functions of time."""
    forecaster = Forecaster(facts)
    for number in range(count):
        now_s = number * 5.0
        fields: dict[str, object] = {"busy_s": now_s * 0.1, "totals": Totals(), "workflows": {}}
        fields |= {name: function(now_s) for name, function in at.items()}
        forecaster.add(Sample(at_s=now_s, **fields))  # pyright: ignore[reportArgumentType]
    forecast = forecaster.forecast()
    assert forecast is not None
    return forecast


def test_a_busy_loop_is_the_bottleneck() -> None:
    forecast = moments(FACTS, busy_s=lambda now_s: now_s * 0.97)
    assert forecast.bottleneck is not None
    assert (forecast.bottleneck.resource, forecast.bottleneck.relief) == ("cpu", RELIEF_MAX)


def test_an_open_breaker_that_holds_tasks_is_the_bottleneck_and_nothing_drains() -> None:
    facts = Facts(slots=10, outcomes_max=10, batch_bytes=10, threads=1, breaker_of={"pay": "bank"})
    forecast = moments(
        facts,
        totals=lambda _: Totals(tasks={("shop", "pay"): Work(count=5, seconds=1)}, finished={"shop": 5}),
        workflows=lambda _: {"shop": WorkflowAt(finished=5, open=8, stuck=8, held_by_breaker=8)},
        blocking=lambda _: frozenset({"bank"}),
    )
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "breaker:bank"
    assert forecast.workflows[0].drain_s == math.inf


def test_full_slots_are_blamed_on_the_handler_that_holds_them() -> None:
    facts = Facts(slots=10, outcomes_max=1000, batch_bytes=10, threads=1)
    forecast = moments(
        facts,
        active_runs=lambda _: 10,
        totals=lambda now_s: Totals(
            tasks={
                ("shop", "slow"): Work(count=now_s, seconds=now_s * 8),
                ("shop", "quick"): Work(count=now_s, seconds=now_s),
            },
            finished={"shop": now_s},
        ),
        workflows=lambda now_s: {"shop": WorkflowAt(finished=now_s, open=30, stuck=20)},
    )
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "task:slow"
    assert forecast.workflows[0].capacity_per_s == pytest.approx(1)


def test_a_handler_that_hangs_in_all_slots_of_its_pool_is_named() -> None:
    """Nothing ends: no duration tells of it."""
    queue = QueueProcess(1, arrivals=lambda _: 1.0, arrivals_max=1.0, servers=SERVERS, mean_s=1e9)
    forecast, flow = watched(queue, 120)
    assert forecast.bottleneck is not None
    assert (forecast.bottleneck.resource, forecast.bottleneck.next) == ("task:serve", "cpu")
    assert (flow.drain_s, flow.breach_s) == (math.inf, 0.0)


def hung(_: float) -> dict[tuple[str, str], int]:
    return {("shop", "hangs"): 10, ("shop", "quick"): 1}


def quick(now_s: float) -> Totals:
    return Totals(tasks={("shop", "quick"): Work(count=now_s, seconds=now_s)})


def test_a_handler_that_hangs_in_all_slots_is_named() -> None:
    facts = Facts(slots=11, outcomes_max=1000, batch_bytes=10, threads=1)
    forecast = moments(facts, active_runs=lambda _: 11, running=hung, totals=quick)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "task:hangs"


def test_a_handler_that_hangs_in_all_threads_is_named() -> None:
    facts = Facts(slots=4000, outcomes_max=1000, batch_bytes=10, threads=10, threaded=frozenset({"hangs"}))
    forecast = moments(facts, active_runs=lambda _: 11, running=hung, totals=quick)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "task:hangs"


def test_threads_that_nobody_waits_for_are_taken_all_the_same() -> None:
    """Its attempts timed out long ago; the functions run on."""
    facts = Facts(slots=4000, outcomes_max=1000, batch_bytes=10, threads=10, threaded=frozenset({"hangs"}))
    forecast = moments(facts, threads_abandoned=lambda _: 10)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "threads"


def test_slots_that_no_handler_holds_are_no_fault_of_the_broker() -> None:
    facts = Facts(slots=10, outcomes_max=1000, batch_bytes=10, threads=1)
    forecast = moments(facts, active_runs=lambda _: 10)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "slots"


def test_a_pool_of_long_attempts_that_end_is_the_bottleneck_itself() -> None:
    queue = QueueProcess(1, arrivals=lambda _: 1.0, arrivals_max=1.0, servers=SERVERS, mean_s=30.0)
    forecast, _ = watched(queue, 300)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "pool:till"
    (task,) = forecast.tasks
    assert task.concurrency == pytest.approx(SERVERS, rel=0.02)


def test_a_rate_limit_that_lets_no_more_through_is_the_bottleneck() -> None:
    """Ten attempts a second of fifteen that are wanted; each is short, and nothing else is used."""
    facts = Facts(
        slots=4000,
        outcomes_max=1000,
        batch_bytes=10,
        threads=1,
        limit_of={"text": "sms", "call": "sms"},
        limits={"sms": 10.0, "idle": 5.0},
        topics_of={"shop": ()},
    )
    forecast = moments(
        facts,
        totals=lambda now_s: Totals(
            tasks={
                ("shop", "text"): Work(count=6 * now_s, seconds=0.06 * now_s),
                ("shop", "call"): Work(count=4 * now_s, seconds=0.04 * now_s),
                ("shop", "free"): Work(count=90 * now_s, seconds=0.9 * now_s),
            },
            finished={"shop": 10 * now_s},
        ),
        workflows=lambda now_s: {
            "shop": WorkflowAt(finished=10 * now_s, open=round(5 * now_s), stuck=round(5 * now_s))
        },
    )
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "limit:sms"
    (flow,) = forecast.workflows
    assert (flow.capacity_per_s, flow.drain_s) == (pytest.approx(10), math.inf)
    assert forecast.workers_needed == pytest.approx(15 / 10 / 0.7, rel=0.3)  # with today's backlog within ten minutes


def test_one_partition_that_alone_lags_is_hot() -> None:
    facts = Facts(slots=10, outcomes_max=1000, batch_bytes=10, threads=1, topics_of={"shop": ("orders",)})
    forecast = moments(
        facts,
        lag=lambda _: {("orders", 0): 3, ("orders", 1): 900, ("orders", 2): 0, ("orders", 3): 1},
        totals=lambda now_s: Totals(finished={"shop": now_s}, started={"shop": now_s}, consumed={"orders": now_s}),
        workflows=lambda now_s: {"shop": WorkflowAt(started=now_s, finished=now_s)},
    )
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "partition:orders/1"


def test_lag_counts_as_the_runs_that_it_will_start() -> None:
    facts = Facts(slots=10, outcomes_max=1000, batch_bytes=10, threads=1, topics_of={"shop": ("orders",)})
    forecast = moments(
        facts,
        lag=lambda _: {("orders", 0): 100},
        totals=lambda now_s: Totals(finished={"shop": now_s}, started={"shop": now_s}, consumed={"orders": now_s * 4}),
        workflows=lambda now_s: {"shop": WorkflowAt(started=now_s, finished=now_s)},
    )
    assert forecast.workflows[0].backlog == pytest.approx(25)  # one record in four starts a run


def test_starts_that_wait_for_their_key_are_told_as_such() -> None:
    forecast = moments(
        FACTS,
        workflows=lambda now_s: {"shop": WorkflowAt(finished=now_s, open=50, stuck=49, queued=49)},
    )
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "keys"
    assert forecast.workflows[0].drain_s == math.inf  # one comes for each that goes


def test_a_broker_that_is_away_is_the_bottleneck() -> None:
    forecast = moments(FACTS, broker_reachable=lambda _: False)
    assert forecast.bottleneck is not None
    assert forecast.bottleneck.resource == "broker"


def test_other_partitions_begin_another_window() -> None:
    forecaster = Forecaster(FACTS)
    for number in range(10):
        placed = frozenset({("orders", 0 if number < 8 else 1)})
        forecaster.add(Sample(at_s=number * 5.0, busy_s=0.0, totals=Totals(), workflows={}, placed=placed))
        assert (forecaster.forecast() is None) == (number < 3 or number >= 8)


def test_runs_that_wake_count_as_coming_again_and_none_is_lost() -> None:
    forecast = moments(
        FACTS,
        workflows=lambda now_s: {"shop": WorkflowAt(open=100, resting=100 if now_s < 30 else 40)},
    )
    assert forecast.workflows[0].arrivals.per_s >= 0
    assert forecast.workflows[0].concurrency > 0
