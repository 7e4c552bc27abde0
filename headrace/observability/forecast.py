"""What will happen next: arrivals, service and use of one process, from samples of its own counters.

Pure: `Forecaster` keeps a window of samples and answers. `forecast_thread.py` feeds it.

    arrived = finished + open + lag in runs      (nothing is lost, so nothing needs to be counted for it)
    served  = arrived - what works or waits for room
    capacity = served / use of what limits       (utilisation law; measured directly while more comes than is served)

docs/forecast.md explains it for operators and says how large the error is; the tests measure it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Final

import msgspec

from headrace.observability import forecast_use as use
from headrace.observability.forecast_flow import Flow
from headrace.observability.forecast_sample import Facts, Sample, Work, WorkflowAt
from headrace.observability.forecast_trend import Trend, fitted
from headrace.observability.forecast_use import Bottleneck, Use

WINDOW: Final = 61
"""Samples: five minutes, at one every 5 s. A longer window knows rates better, and trends later."""
WORKFLOWS_MAX: Final = 200
"""The busiest: each costs some 0.5 ms, of five seconds."""
SAMPLES_MIN: Final = 4
RECENT: Final = 12
"""Intervals for what is only averaged: a minute."""
DRAIN_WITHIN_S: Final = 600.0
"""Workers are reckoned so that a backlog is gone after so long."""
USE_WANTED: Final = 0.7
"""And so that they are used no more than that."""
_UNKNOWN_BELOW: Final = 0.02  # of less use than that nothing can be concluded: it is the idle process
_EXPLAINS: Final = 0.5
_LONG: Final = 0.25  # of the time that we look: of attempts that last longer, too few end to tell by
_ALONE: Final = 4.0  # a partition with so many times the lag of its middle neighbour is hot


class WorkflowForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow here. Rates are runs a second; `drain_s` and `breach_s` may be infinite."""

    workflow: str
    backlog: float
    arrivals: Trend
    served_per_s: float
    capacity_per_s: float | None  # None: too little was served to tell
    concurrency: float  # runs that work, on average
    drain_s: float
    breach_s: float


class TaskForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One handler in one workflow: attempts a second, seconds of one (infinite: none ended), and how many ran at once on average."""

    workflow: str
    task: str
    per_s: float
    mean_s: float
    concurrency: float


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a window of `window_s` seconds tells. `workers_needed`: of this size, for this process's share of the load."""

    window_s: float
    workflows: tuple[WorkflowForecast, ...] = ()
    tasks: tuple[TaskForecast, ...] = ()
    uses: tuple[Use, ...] = ()  # most used first
    bottleneck: Bottleneck | None = None
    workers_needed: float | None = None


class _Flows(msgspec.Struct, kw_only=True):
    at_s: list[float] = []
    arrivals: list[float] = []
    served: list[float] = []
    backlog: list[float] = []  # at the end of each interval
    working: list[float] = []


class Forecaster:
    """`add` samples in order of time, then ask. One per process; not for several threads."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._samples: deque[Sample] = deque(maxlen=WINDOW)

    def add(self, sample: Sample) -> None:
        """The newest moment. When other partitions are placed here, what was before tells nothing."""
        if self._samples and self._samples[-1].placed != sample.placed:
            self._samples.clear()
        self._samples.append(sample)

    def forecast(self, breathe: Callable[[], None] = lambda: None) -> Forecast | None:
        """None while the window is too short. `breathe` is called between pieces of work of some 100 us."""
        if len(self._samples) < SAMPLES_MIN:
            return None
        samples = list(self._samples)
        flows = self._flows(samples, breathe)
        tasks = _tasks(samples)
        uses = self._uses(samples, tasks)
        breathe()
        by_name = {each.resource: each.ratio for each in uses}
        workflows: list[WorkflowForecast] = []
        for name, flow in flows.items():
            workflows.append(self._workflow(name, flow, _most_used(self._resources(name, tasks, samples[-1]), by_name)))
            breathe()
        held = {f"task:{task}": total for task, total in _by_task(tasks).items()}
        held[use.BROKER] = _in_log(samples)
        ranked = tuple(sorted(uses, key=lambda each: each.ratio, reverse=True))
        return Forecast(
            window_s=samples[-1].at_s - samples[0].at_s,
            workflows=tuple(workflows),
            tasks=tasks,
            uses=ranked,
            bottleneck=use.bottleneck(ranked, held, self._stuck(samples[-1], tasks), odd=_odd(samples, flows)),
            workers_needed=_workers(workflows, ranked),
        )

    # --- flows ----------------------------------------------------------------------------------------------------

    def _flows(self, samples: list[Sample], breathe: Callable[[], None]) -> dict[str, _Flows]:
        per_record = self._per_record(samples)
        names = [
            name
            for name in samples[-1].workflows
            if samples[-1].workflows[name] != samples[0].workflows.get(name, WorkflowAt())
            or samples[-1].workflows[name].open
            or any(samples[-1].lag.get(at) for at in samples[-1].lag if at[0] in self._facts.topics_of.get(name, ()))
        ]
        if len(names) > WORKFLOWS_MAX:
            first, last = samples[0].workflows, samples[-1].workflows
            names = nlargest(
                WORKFLOWS_MAX,
                names,
                key=lambda name: last[name].finished - first.get(name, WorkflowAt()).finished + last[name].open,
            )
        found: dict[str, _Flows] = {}
        for name in names:
            found[name] = _flow(name, samples, per_record.get(name, {}))
            breathe()
        return found

    def _per_record(self, samples: list[Sample]) -> dict[str, dict[str, float]]:
        """How many runs of a workflow one record of each of its topics starts, as seen so far."""
        first, last = samples[0].totals, samples[-1].totals
        found: dict[str, dict[str, float]] = {}
        sharing: dict[str, int] = {}
        for topics in self._facts.topics_of.values():
            for topic in topics:
                sharing[topic] = sharing.get(topic, 0) + 1
        for name, topics in self._facts.topics_of.items():
            for earlier in (first, None):  # what the window tells, else the whole life of the process
                started = last.started.get(name, 0.0) - (earlier.started.get(name, 0.0) if earlier else 0.0)
                consumed = sum(
                    last.consumed.get(topic, 0.0) - (earlier.consumed.get(topic, 0.0) if earlier else 0.0)
                    for topic in topics
                )
                if consumed >= 1:
                    found[name] = dict.fromkeys(topics, min(1.0, started / consumed))
                    break
            else:
                found[name] = {topic: 1 / sharing[topic] for topic in topics}
        return found

    def _workflow(self, name: str, flow: _Flows, used: float) -> WorkflowForecast:
        arrivals, served_per_s = fitted(flow.at_s, flow.arrivals), _mean(flow.served[-RECENT:])
        backlog = flow.backlog[-1]
        capacity = _capacity(flow, used)
        queue = Flow(backlog=backlog, arrivals=arrivals, capacity_per_s=capacity, served_per_s=served_per_s)
        return WorkflowForecast(
            workflow=name,
            backlog=backlog,
            arrivals=arrivals,
            served_per_s=served_per_s,
            capacity_per_s=capacity,
            concurrency=_mean(flow.working[-RECENT:]),
            drain_s=queue.drain_s(),
            breach_s=queue.breach_s(self._facts.delay_limit_s),
        )

    # --- use ------------------------------------------------------------------------------------------------------

    def _uses(self, samples: list[Sample], tasks: tuple[TaskForecast, ...]) -> list[Use]:
        """Over the last minute, like `_capacity`, so that one may be divided by the other."""
        facts = self._facts
        recent = _recent(samples)
        first, last = recent[0], recent[-1]
        busy = (last.busy_s - first.busy_s) / (last.at_s - first.at_s)
        slots = _mean([each.active_runs for each in recent]) / facts.slots
        uses = [Use(use.CPU, busy), Use(use.SLOTS, slots), Use(use.BROKER, self._broker(samples))]
        for pool, (_, size) in last.pools.items():
            mine = {handler for handler, of in facts.pool_of.items() if of == pool}
            in_use = [each.pools.get(pool, (0, size))[0] for each in recent]
            uses.append(Use(f"pool:{pool}", _occupied(tasks, mine, in_use, last.at_s - first.at_s) / size))
        for limit, per_s in facts.limits.items():
            begun = sum(each.per_s for each in tasks if facts.limit_of.get(each.task) == limit)
            uses.append(Use(f"limit:{limit}", begun / per_s))
        if facts.threaded:
            running = sum(each.concurrency for each in tasks if each.task in facts.threaded)
            abandoned = _mean([each.threads_abandoned for each in recent])
            uses.append(Use(use.THREADS, (running + abandoned) / facts.threads))
        uses += [Use(f"task:{task}", total / facts.slots) for task, total in _by_task(tasks).items()]
        uses += [Use(f"breaker:{name}", 1.0) for name in last.blocking if self._holds(name, last)]
        return [Use(each.resource, min(1.0, each.ratio)) for each in uses]

    def _stuck(self, last: Sample, tasks: tuple[TaskForecast, ...]) -> dict[str, str]:
        """Pools and threads that attempts of one handler keep, of which none has ended within the last minute."""
        facts = self._facts
        ended = {each.task for each in tasks if each.per_s}
        found: dict[str, str] = {}
        for task, running in _by_task(tasks).items():
            if task in ended:
                continue
            name = f"task:{task}"
            pool = facts.pool_of.get(task)
            if pool in last.pools and running >= use.LIMITS_FROM * last.pools[pool][1]:
                found[f"pool:{pool}"] = name
            if task in facts.threaded and running >= use.LIMITS_FROM * facts.threads:
                found[use.THREADS] = name
        return found

    def _broker(self, samples: list[Sample]) -> float:
        """Outcomes on their way against how many may be; batches in flight against the fullest."""
        first, last = _recent(samples)[0], samples[-1]
        if not last.broker_reachable:
            return 1.0
        span_s = last.at_s - first.at_s
        batches = last.totals.appends.count - first.totals.appends.count
        if batches <= 0 or span_s <= 0:
            return 0.0
        owned = max(1, sum(topic == "" for topic, _ in last.placed))
        in_flight = (last.totals.appends.seconds - first.totals.appends.seconds) / span_s / owned
        fill = (last.totals.outcome_bytes - first.totals.outcome_bytes) / batches / self._facts.batch_bytes
        return max(_in_log(samples) / self._facts.outcomes_max, min(1.0, in_flight) * min(1.0, fill))

    def _holds(self, breaker: str, last: Sample) -> bool:
        using = {task for task, of in self._facts.breaker_of.items() if of == breaker}
        return any(
            flow.held_by_breaker and any((name, task) in last.totals.tasks for task in using)
            for name, flow in last.workflows.items()
        ) or (any(flow.held_by_breaker for flow in last.workflows.values()) and len(last.blocking) == 1)

    def _resources(self, workflow: str, tasks: tuple[TaskForecast, ...], last: Sample) -> set[str]:
        """What a workflow needs, as far as was seen."""
        facts = self._facts
        needs = {use.CPU, use.SLOTS, use.BROKER}
        for each in tasks:
            if each.workflow != workflow:
                continue
            if each.task in facts.pool_of:
                needs.add(f"pool:{facts.pool_of[each.task]}")
            if each.task in facts.limit_of:
                needs.add(f"limit:{facts.limit_of[each.task]}")
            if each.task in facts.threaded:
                needs.add(use.THREADS)
            breaker = facts.breaker_of.get(each.task)
            if breaker in last.blocking and last.workflows[workflow].held_by_breaker:
                needs.add(f"breaker:{breaker}")
        return needs


def _flow(name: str, samples: list[Sample], per_record: dict[str, float]) -> _Flows:
    found = _Flows(at_s=[], arrivals=[], served=[], backlog=[], working=[])
    before: tuple[float, float, float] | None = None
    for each in samples:
        state = each.workflows.get(name, WorkflowAt())
        behind = math.fsum(
            records * per_record[topic] for (topic, _), records in each.lag.items() if topic in per_record
        )
        arrived = state.finished + state.open + behind
        gone = state.finished + state.resting
        if before is not None:
            span_s = each.at_s - before[0]
            came, went = max(0.0, arrived - before[1]), gone - before[2]
            if went < 0:  # runs that rested woke: they come again
                came, went = came - went, 0.0
            found.at_s.append((each.at_s + before[0]) / 2)
            found.arrivals.append(came / span_s)
            found.served.append(went / span_s)
            found.backlog.append(behind + state.stuck)
            found.working.append(state.open - state.resting - state.stuck)
        before = (each.at_s, arrived, gone)
    return found


def _capacity(flow: _Flows, used: float) -> float | None:
    """What could be served: by the use of what limits, or as measured while something waited all the time."""
    served_per_s = _mean(flow.served[-RECENT:])
    if used >= _EXPLAINS:
        return served_per_s / used
    busy = 0
    while busy < len(flow.backlog) and flow.backlog[-1 - busy] >= 1:
        busy += 1
    if busy >= SAMPLES_MIN:  # its first interval may have begun without a backlog
        return _mean(flow.served[1 - busy :][-RECENT:])
    return served_per_s / used if used >= _UNKNOWN_BELOW and served_per_s > 0 else None


def _most_used(resources: Iterable[str], uses: dict[str, float]) -> float:
    return max((uses.get(each, 0.0) for each in resources), default=0.0)


def _tasks(samples: list[Sample]) -> tuple[TaskForecast, ...]:
    """By Little's law over the last minute: what ended within a second, times how long it took.

    Attempts that last as long as we look are not told by their ends: of these, how many ran at each sample.
    """
    recent = _recent(samples)
    first, last = recent[0], recent[-1]
    span_s = last.at_s - first.at_s
    found: list[TaskForecast] = []
    for key in {**last.totals.tasks, **last.running}:
        work, before = last.totals.tasks.get(key, Work()), first.totals.tasks.get(key, Work())
        count, seconds = work.count - before.count, work.seconds - before.seconds
        concurrency = seconds / span_s
        if not count or seconds / count > span_s * _LONG:
            concurrency = _mean([each.running.get(key, 0) for each in recent])
        if count > 0 or concurrency > 0:
            found.append(
                TaskForecast(
                    workflow=key[0],
                    task=key[1],
                    per_s=count / span_s,
                    mean_s=seconds / count if count else math.inf,
                    concurrency=concurrency,
                )
            )
    return tuple(found)


def _by_task(tasks: Iterable[TaskForecast]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in tasks:
        found[each.task] = found.get(each.task, 0.0) + each.concurrency
    return found


def _occupied(tasks: tuple[TaskForecast, ...], handlers: set[str], in_use: list[int], seen_s: float) -> float:
    """Slots of a pool that are taken on average: exact from what ended, unless attempts last as long as we look."""
    mine = [each for each in tasks if each.task in handlers]
    busy, count = sum(each.concurrency for each in mine), sum(each.per_s for each in mine)
    return _mean(in_use) if not count or busy / count > seen_s * _LONG else busy


def _in_log(samples: list[Sample]) -> float:
    """Outcomes on their way to the log and back, on average."""
    first, last = _recent(samples)[0], samples[-1]
    batches = last.totals.read_backs.count - first.totals.read_backs.count
    if batches <= 0:
        return 0.0
    mean_s = (last.totals.read_backs.seconds - first.totals.read_backs.seconds) / batches
    return (last.totals.records - first.totals.records) / (last.at_s - first.at_s) * mean_s


def _odd(samples: list[Sample], flows: dict[str, _Flows]) -> str:
    """What makes starts wait although nothing is used up: one partition, or keys. "" if hardly anything waits."""
    recent = samples[-SAMPLES_MIN:]
    waiting = [flow for flow in flows.values() if all(each >= 1 for each in flow.backlog[-SAMPLES_MIN:])]
    if not waiting:
        return ""
    backlog = sum(flow.backlog[-1] for flow in waiting)
    queued = sum(flow.queued for flow in recent[-1].workflows.values())
    if queued > backlog / 2:
        return use.KEYS
    (topic, partition), worst = max(recent[-1].lag.items(), key=lambda item: item[1], default=(("", 0), 0))
    of_topic = sorted(records for at, records in recent[-1].lag.items() if at[0] == topic)
    if len(of_topic) > 1 and worst > backlog / 2 and worst >= _ALONE * max(1, of_topic[(len(of_topic) - 1) // 2]):
        return f"partition:{topic}/{partition}"
    return ""


def _workers(workflows: list[WorkflowForecast], ranked: tuple[Use, ...]) -> float | None:
    """What the present load, and the backlog within `DRAIN_WITHIN_S`, would use of workers like this one."""
    wanted = sum(each.arrivals.per_s + each.backlog / DRAIN_WITHIN_S for each in workflows)
    served = sum(each.served_per_s for each in workflows)
    used = next((each.ratio for each in ranked if each.scales), 0.0)
    if not wanted:
        return used / USE_WANTED
    return used * wanted / served / USE_WANTED if served else None


def _recent(samples: list[Sample]) -> list[Sample]:
    """The last minute."""
    return samples[-min(len(samples), RECENT + 1) :]


def _mean(values: list[float] | list[int]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
