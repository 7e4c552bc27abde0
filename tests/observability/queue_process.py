"""A known process to forecast: Poisson arrivals, `c` exponential servers, one queue. Seeded, in simulated time.

It tells a real `PrometheusObserver` what the shell would, and shows a snapshot as the shell would; so the forecast is
tested from its counters on. The truth about it is known from theory, or by letting it run on.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable

from headrace.observability import told_run
from headrace.observability.forecast_sample import Facts, Sample, sample
from headrace.observability.label import Ending, TriggerKind
from headrace.observability.prometheus import PrometheusObserver
from headrace.observability.snapshot import PoolNow, RunState, Snapshot, TaskState, WorkflowNow
from headrace.topics.outcome import RunStatus

FACTS = Facts(
    slots=4000,
    outcomes_max=1750,
    batch_bytes=512 * 1024,
    threads=32,
    pool_of={"serve": "till"},
    topics_of={"shop": ("orders",)},
    delay_limit_s=60.0,
)


class QueueProcess:
    """One workflow `shop` with one task `serve` in the pool `till` of `servers` slots; each takes `mean_s` on average.

    `arrivals(at_s)` is the rate of a Poisson process by time, never above `arrivals_max`.
    """

    def __init__(
        self, seed: int, *, arrivals: Callable[[float], float], arrivals_max: float, servers: int, mean_s: float
    ) -> None:
        self._random = random.Random(seed)
        self._arrivals, self._arrivals_max = arrivals, arrivals_max
        self._servers, self._mean_s = servers, mean_s
        self.observer = PrometheusObserver()
        self.now_s = 0.0
        self.waiting: deque[float] = deque()  # when they came
        self._serving: list[tuple[float, float, float]] = []  # ends, began, came
        self._next_s = self._after(0.0)

    def run_until(self, at_s: float) -> None:
        while True:
            ends_s = self._serving[0][0] if self._serving else float("inf")
            if min(ends_s, self._next_s) > at_s:
                break
            if ends_s <= self._next_s:
                self._end()
            else:
                self._come()
        self.now_s = at_s

    def sample(self) -> Sample:
        runs = {RunState.RUNNING: len(self._serving), RunState.HELD: len(self.waiting)}
        now = Snapshot(
            workflows=(WorkflowNow(workflow="shop", runs=runs, tasks_queued={TaskState.HELD_POOL: len(self.waiting)}),),
            pools=(PoolNow(pool="till", slots=self._servers, slots_in_use=len(self._serving)),),
            active_runs=len(self._serving),
            handlers_running={("shop", "serve"): len(self._serving)} if self._serving else {},
        )
        return sample(now, self.observer.totals(), at_s=self.now_s, busy_s=self.now_s * 0.1)

    def _after(self, at_s: float) -> float:
        """The next arrival, by thinning."""
        while True:
            at_s += self._random.expovariate(self._arrivals_max)
            if self._random.random() * self._arrivals_max <= self._arrivals(at_s):
                return at_s

    def _come(self) -> None:
        came_s = self._next_s
        self._next_s = self._after(came_s)
        self.observer.run_started(
            told_run.RunStarted(run="1.a", workflow="shop", version="1", trigger=TriggerKind.EVENT, started_at_ms=0)
        )
        if len(self._serving) < self._servers:
            self._serve(came_s, came_s)
        else:
            self.waiting.append(came_s)

    def _serve(self, began_s: float, came_s: float) -> None:
        heapq.heappush(self._serving, (began_s + self._random.expovariate(1 / self._mean_s), began_s, came_s))

    def _end(self) -> None:
        ended_s, began_s, came_s = heapq.heappop(self._serving)
        self.observer.attempt_ended(
            told_run.AttemptEnded(
                run="1.a",
                workflow="shop",
                step="/1/serve",
                handler="serve",
                number=1,
                ending=Ending.SUCCEEDED,
                started_at_ms=0,
                duration_ms=(ended_s - began_s) * 1000,
            )
        )
        self.observer.run_finished(
            told_run.RunFinished(
                run="1.a",
                workflow="shop",
                status=RunStatus.SUCCEEDED,
                started_at_ms=0,
                duration_ms=(ended_s - came_s) * 1000,
            )
        )
        if self.waiting:
            self._serve(ended_s, self.waiting.popleft())
