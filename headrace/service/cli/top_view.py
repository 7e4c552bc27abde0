"""What `headrace top` shows, from two looks at the workers. Pure; its JSON is a contract."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from headrace.service.cli.worker_metrics import Scrape


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One process. Everything but the address is empty if it did not answer."""

    worker: str
    url: str
    status: str
    cpu: float | None = None  # share of the event loop's thread
    slots: float | None = None
    memory_bytes: int = 0
    bottleneck: str = ""
    relief: float | None = None


class WorkflowView(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow over all workers; rates are runs a second. `drain_s`, `breach_s`: None is never, or not known."""

    workflow: str
    started_per_s: float
    finished_per_s: float
    failed_per_s: float
    active: dict[str, int]  # by state
    arrivals_per_s: float | None
    capacity_per_s: float | None
    drain_s: float | None
    breach_s: float | None


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """One handler in one workflow."""

    workflow: str
    task: str
    attempts_per_s: float
    failed_per_s: float
    mean_ms: float | None


class LagView(msgspec.Struct, frozen=True, kw_only=True):
    """One source topic: records not done, the age of the oldest, and the partition that is furthest behind."""

    topic: str
    records: int
    seconds: float
    worst_partition: int


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """One breaker, by the worst state that it is in anywhere."""

    breaker: str
    state: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All workers of this machine, at one moment. `bottleneck`: of the worker that is relieved most without it.

    `history_lag_s`: how far the history is behind the run log, the partition that is furthest; None where there is none.
    """

    workers: list[WorkerView]
    workflows: list[WorkflowView]
    tasks: list[TaskView]
    lag: list[LagView]
    breakers: list[BreakerView]
    bottleneck: str
    relief: float | None
    workers_needed: int | None
    approvals_pending: int = 0
    dead_letters_open: int = 0
    history_lag_s: float | None = None


_STATES = ("open", "half_open", "closed")
_FAILED = ("failed", "timed_out", "compensated")
"""Of runs as dashboards and the error budget count them; an attempt is never compensated."""


def view(before: Sequence[Scrape], after: Sequence[Scrape]) -> View:
    """Rates are between the two looks."""
    rates = _Rates(before, after)
    workers = [_worker(each) for each in after]
    limiting = max((each for each in workers if each.bottleneck), key=lambda each: each.relief or 0.0, default=None)
    needed = [value for each in after for _, value in each.values("forecast_workers_needed")]
    return View(
        workers=workers,
        workflows=_workflows(after, rates),
        tasks=_tasks(after, rates),
        lag=_lag(after),
        breakers=_breakers(after),
        bottleneck="" if limiting is None else limiting.bottleneck,
        relief=None if limiting is None else limiting.relief,
        workers_needed=math.ceil(sum(needed) - 1e-9) if needed and _scales(limiting) else None,
        approvals_pending=int(sum(_all(after, "approvals_pending"))),
        dead_letters_open=int(sum(_all(after, "dead_letters_open"))),
        history_lag_s=max(_all(after, "history_lag_seconds"), default=None),
    )


def _all(after: Sequence[Scrape], family: str) -> list[float]:
    return [value for each in after for _, value in each.values(family)]


class _Rates:
    """Counters per second between two looks, of workers that answered both times; one that started anew counts from 0."""

    def __init__(self, before: Sequence[Scrape], after: Sequence[Scrape]) -> None:
        earlier = {each.url: each for each in before}
        self._pairs = [
            (earlier[each.url], each)
            for each in after
            if each.url in earlier and not each.failure and each.at_s > earlier[each.url].at_s
        ]

    def by(
        self, family: str, *labels: str, only: tuple[str, tuple[str, ...]] | None = None
    ) -> dict[tuple[str, ...], float]:
        """Summed by these labels; `only`: a label and the values that count."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for earlier, later in self._pairs:
            was = {tuple(sorted(of.items())): value for of, value in earlier.values(family)}
            for of, value in later.values(family):
                if only is not None and of.get(only[0]) not in only[1]:
                    continue
                grown = value - was.get(tuple(sorted(of.items())), 0.0)
                key = tuple(of.get(label, "") for label in labels)
                found[key] += (grown if grown >= 0 else value) / (later.at_s - earlier.at_s)
        return found


def _worker(scrape: Scrape) -> WorkerView:
    if scrape.failure:
        return WorkerView(worker=scrape.worker, url=scrape.url, status=f"no answer: {scrape.failure}")
    used = {of.get("resource", ""): value for of, value in scrape.values("forecast_utilization_ratio")}
    limits = [of.get("resource", "") for of, value in scrape.values("forecast_bottleneck") if value]
    reliefs = [value for _, value in scrape.values("forecast_bottleneck_relief_ratio")]
    memory = scrape.samples.get("process_resident_memory_bytes", [])
    return WorkerView(
        worker=scrape.worker,
        url=scrape.url,
        status=scrape.status,
        cpu=used.get("cpu"),
        slots=used.get("slots"),
        memory_bytes=int(memory[0][1]) if memory else 0,
        bottleneck=limits[0] if limits else "",
        relief=reliefs[0] if reliefs else None,
    )


def _workflows(after: Sequence[Scrape], rates: _Rates) -> list[WorkflowView]:
    active: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for each in after:
        for of, value in each.values("runs_active"):
            active[of["workflow"]][of["state"]] += int(value)
    started = rates.by("runs_started_total", "workflow")
    finished = rates.by("runs_finished_total", "workflow")
    failed = rates.by("runs_finished_total", "workflow", only=("status", _FAILED))
    arrivals = _gathered(after, "forecast_arrivals_per_second", sum)
    capacity = _gathered(after, "forecast_capacity_per_second", sum)
    drain = _gathered(after, "forecast_backlog_drain_seconds", max)
    breach = _gathered(after, "forecast_backlog_breach_seconds", min)
    seen = {name for each in after for of, _ in each.values("runs_finished_total") if (name := of["workflow"])}
    names = sorted({*active, *arrivals, *seen, *(name for (name,) in started)})
    return [
        WorkflowView(
            workflow=name,
            started_per_s=started.get((name,), 0.0),
            finished_per_s=finished.get((name,), 0.0),
            failed_per_s=failed.get((name,), 0.0),
            active={state: count for state, count in active[name].items() if count},
            arrivals_per_s=arrivals.get(name),
            capacity_per_s=capacity.get(name),
            drain_s=_finite(drain.get(name)),
            breach_s=_finite(breach.get(name)),
        )
        for name in names
    ]


def _gathered(after: Sequence[Scrape], family: str, by: Callable[[Iterable[float]], float]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for each in after:
        for of, value in each.values(family):
            found[of["workflow"]].append(value)
    return {name: by(values) for name, values in found.items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _tasks(after: Sequence[Scrape], rates: _Rates) -> list[TaskView]:
    attempts = rates.by("task_attempts_total", "workflow", "task")
    failed = rates.by("task_attempts_total", "workflow", "task", only=("result", _FAILED))
    count = rates.by("task_duration_seconds_count", "workflow", "task")
    seconds = rates.by("task_duration_seconds_sum", "workflow", "task")
    known = {(of["workflow"], of["task"]) for each in after for of, _ in each.values("task_attempts_total")}
    return [
        TaskView(
            workflow=at[0],
            task=at[1],
            attempts_per_s=attempts.get(at, 0.0),
            failed_per_s=failed.get(at, 0.0),
            mean_ms=seconds.get(at, 0.0) / count[at] * 1000 if count.get(at) else None,
        )
        for at in sorted(known)
    ]


def _lag(after: Sequence[Scrape]) -> list[LagView]:
    records: dict[str, dict[int, float]] = defaultdict(dict)
    seconds: dict[str, float] = defaultdict(float)
    for each in after:
        for of, value in each.values("kafka_consumer_lag_records"):
            number = int(of["partition"]) if of["partition"].isdecimal() else -1
            records[of["topic"]][number] = records[of["topic"]].get(number, 0.0) + value
        for of, value in each.values("kafka_consumer_lag_seconds"):
            seconds[of["topic"]] = max(seconds[of["topic"]], value)
    return [
        LagView(
            topic=topic,
            records=int(sum(by.values())),
            seconds=seconds[topic],
            worst_partition=max(by, key=lambda number: by[number]),
        )
        for topic, by in sorted(records.items())
    ]


def _scales(limiting: WorkerView | None) -> bool:
    """Whether more workers would help at all: not against an open breaker, a busy key or one hot partition."""
    return limiting is None or not limiting.bottleneck.startswith(("breaker:", "keys", "partition:"))


def _breakers(after: Sequence[Scrape]) -> list[BreakerView]:
    states: dict[str, set[str]] = defaultdict(set)
    for each in after:
        for of, value in each.values("circuit_breaker_state"):
            if value:
                states[of["breaker"]].add(of["state"])
    return [
        BreakerView(breaker=name, state=next((state for state in _STATES if state in found), ""))
        for name, found in sorted(states.items())
    ]
