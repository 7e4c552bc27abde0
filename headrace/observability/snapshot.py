"""What is, as opposed to what happened: the gauges, read from the shell's state when somebody asks.

The shell supplies a `Snapshots`: a plain function that is called on the event loop's thread, at most once a second,
and answers from counters that it keeps anyway (partition states, `statistics()` of the policies). Labels follow
`observer.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from headrace.observability.label import BreakerState, StopReason


class RunState(StrEnum):
    """Where an open run stands. The states exclude each other."""

    UNADMITTED = "unadmitted"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    PAUSED = "paused"
    COMPENSATING = "compensating"
    PARKED = "parked"


class TaskState(StrEnum):
    """Why a task that has work to do has no attempt running."""

    READY = "ready"
    DELAYED = "delayed"  # waiting for its retry
    HELD_BREAKER = "held_breaker"
    HELD_POOL = "held_pool"
    HELD_LIMIT = "held_limit"
    HELD_PRIORITY = "held_priority"


class WorkflowNow(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow in this process. States that are left out are 0."""

    workflow: str
    runs: dict[RunState, int] = {}
    tasks_in_progress: int = 0
    tasks_queued: dict[TaskState, int] = {}
    oldest_active_run_start_ms: int | None = None  # None: no open run


class LagNow(msgspec.Struct, frozen=True, kw_only=True):
    """How far a group's position is behind the end of one partition.

    `seconds`: age of the first record not yet done, 0 without lag.
    """

    topic: str
    partition: int
    group: str
    records: int
    seconds: float


class BreakerNow(msgspec.Struct, frozen=True, kw_only=True):
    """One breaker in this process."""

    breaker: str
    state: BreakerState


class PoolNow(msgspec.Struct, frozen=True, kw_only=True):
    """One pool (bulkhead) in this process."""

    pool: str
    slots: int
    slots_in_use: int


class LogPartitionNow(msgspec.Struct, frozen=True, kw_only=True):
    """One owned run-log partition.

    `log_bytes`: written since the last checkpoint; `checkpoint_bytes`: size of the last one.
    """

    partition: int
    log_bytes: int
    checkpoint_bytes: int = 0


class HistoryNow(msgspec.Struct, frozen=True, kw_only=True):
    """How far the history is behind the run log, over the partitions that are fed here."""

    lag_records: int
    lag_seconds: float


class StoppedNow(msgspec.Struct, frozen=True, kw_only=True):
    """How many partitions of one topic stand still, by reason."""

    topic: str
    reason: StopReason
    partitions: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one process, at one moment."""

    workflows: tuple[WorkflowNow, ...] = ()
    timers_pending: int = 0
    approvals_pending: dict[str, int] = {}  # by workflow
    lag: tuple[LagNow, ...] = ()
    partitions_assigned: dict[str, int] = {}  # by group
    breakers: tuple[BreakerNow, ...] = ()
    pools: tuple[PoolNow, ...] = ()
    log_partitions: tuple[LogPartitionNow, ...] = ()
    stopped: tuple[StoppedNow, ...] = ()
    history: HistoryNow | None = None  # None: there is no history
    source_backlog_bytes: dict[str, int] = {}  # by topic: unadmitted starts
    dead_letters: dict[str, int] = {}  # records by dead-letter topic, of those that this process looks at
    active_runs: int = 0  # that take a slot of the process
    handlers_running: dict[tuple[str, str], int] = {}  # attempts in progress, by workflow and handler
    threads_abandoned: int = 0  # taken by handlers that nobody waits for any more
    broker_reachable: bool = True
    sse_clients: int = 0  # live update streams that are open
    definitions: dict[str, int] = {}  # by status: loaded, held, retired


Snapshots = Callable[[], Snapshot]

EMPTY = Snapshot()
