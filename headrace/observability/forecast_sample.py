"""What the forecast knows of one process at one moment: counters since its start, and what is.

Pure values. `sample` puts one together from the metrics' own counters and a snapshot, so that nothing is counted twice
and the hot path does nothing for it.
"""

from __future__ import annotations

import msgspec

from headrace.observability.label import BreakerState
from headrace.observability.snapshot import RunState, Snapshot, TaskState

_RESTING = (RunState.WAITING, RunState.PAUSED, RunState.PARKED)
_STUCK = (RunState.UNADMITTED, RunState.QUEUED, RunState.HELD)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while a process runs: its limits, and what belongs to what. Names as in metric labels."""

    slots: int  # runs that may work at once
    outcomes_max: int  # outcomes that may be on their way to the log and back
    batch_bytes: int  # the largest batch of outcomes
    threads: int
    threaded: frozenset[str] = frozenset()  # handlers that run in threads
    pool_of: dict[str, str] = {}  # handler: pool
    breaker_of: dict[str, str] = {}  # handler: breaker
    limit_of: dict[str, str] = {}  # handler: rate limit
    limits: dict[str, float] = {}  # rate limit: attempts a second
    topics_of: dict[str, tuple[str, ...]] = {}  # workflow: source topics
    delay_limit_s: float = 300.0  # the longest wait of a start that is acceptable


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Ended pieces of work since the start of the process, and the seconds that they took altogether."""

    count: float = 0.0
    seconds: float = 0.0


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the start of the process."""

    started: dict[str, float] = {}  # by workflow
    finished: dict[str, float] = {}  # by workflow
    tasks: dict[tuple[str, str], Work] = {}  # by workflow and handler
    consumed: dict[str, float] = {}  # by topic
    appends: Work = Work()  # batches of the run log
    read_backs: Work = Work()
    records: float = 0.0  # appended to the run log
    outcome_bytes: float = 0.0


class WorkflowAt(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one workflow. `resting` wait for time or people, `stuck` for room; the others of `open` work."""

    started: float = 0.0
    finished: float = 0.0
    open: int = 0
    resting: int = 0
    stuck: int = 0
    queued: int = 0  # of the stuck: for their key
    held_by_breaker: int = 0  # tasks


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. `at_s` is monotonic; `busy_s` is what the loop's thread has used of its CPU, and waited for it."""

    at_s: float
    busy_s: float
    totals: Totals
    workflows: dict[str, WorkflowAt]
    lag: dict[tuple[str, int], int] = {}  # records, by topic and partition
    pools: dict[str, tuple[int, int]] = {}  # in use, size
    blocking: frozenset[str] = frozenset()  # breakers that are not closed
    active_runs: int = 0
    running: dict[tuple[str, str], int] = {}  # attempts, by workflow and handler
    threads_abandoned: int = 0
    broker_reachable: bool = True
    placed: frozenset[tuple[str, int]] = frozenset()  # partitions read and owned here


def sample(now: Snapshot, totals: Totals, *, at_s: float, busy_s: float) -> Sample:
    """All of one moment."""
    workflows = {
        flow.workflow: WorkflowAt(
            started=totals.started.get(flow.workflow, 0.0),
            finished=totals.finished.get(flow.workflow, 0.0),
            open=sum(flow.runs.values()),
            resting=sum(flow.runs.get(state, 0) for state in _RESTING),
            stuck=sum(flow.runs.get(state, 0) for state in _STUCK),
            queued=flow.runs.get(RunState.QUEUED, 0),
            held_by_breaker=flow.tasks_queued.get(TaskState.HELD_BREAKER, 0),
        )
        for flow in now.workflows
    }
    lag = {(each.topic, each.partition): each.records for each in now.lag}
    return Sample(
        at_s=at_s,
        busy_s=busy_s,
        totals=totals,
        workflows=workflows,
        lag=lag,
        pools={pool.pool: (pool.slots_in_use, pool.slots) for pool in now.pools},
        blocking=frozenset(each.breaker for each in now.breakers if each.state is not BreakerState.CLOSED),
        active_runs=now.active_runs,
        running=now.handlers_running,
        threads_abandoned=now.threads_abandoned,
        broker_reachable=now.broker_reachable,
        placed=frozenset((*lag, *(("", each.partition) for each in now.log_partitions))),
    )
