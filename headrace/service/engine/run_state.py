"""The state of one run: what the records of the log mean for it so far. Changed by `fold.py` alone; kept as bytes by `run_bytes.py` while nobody needs it.

start ──► OPEN ──────────────► (ended, gone) ──► outbox entries may remain
  │        ▲ │ park    cancel ▲
  │        │ ▼                │
  │ key    PARKED ────────────┘
  ▼ taken  (resume: OPEN)
QUEUED ──► OPEN when the open run of its key ends
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from headrace.service.engine.approval import Decision
from headrace.topics.command import Approve, Cancel, ChildEnded, Parent, Start
from headrace.topics.identity import Identity
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutputRefused,
    RunParked,
    StepsCancelled,
    TimerFired,
)


class ChildBegan(msgspec.Struct, frozen=True, tag_field="is", tag="child.began", gc=False):
    """What a history keeps of a `ChildStarted`: which run it began. Never in the log."""

    run: str
    step: str
    workflow: str
    child: str
    awaited: bool


Woke = (
    AttemptSucceeded
    | AttemptFailed
    | TimerFired
    | StepsCancelled
    | Emitted
    | OutputRefused
    | Cancel
    | Approve
    | ChildBegan
    | ChildEnded
)
"""The records that a run's coroutine may notice."""


Copied = AttemptSucceeded | Emitted | Decision | ChildBegan | ChildEnded
"""What a retry may have of the runs before it."""


class Phase(StrEnum):
    """A run's place in the picture above. Ended runs are not in the state."""

    OPEN = "open"
    QUEUED = "queued"
    PARKED = "parked"


class StepTries(msgspec.Struct, array_like=True):
    """A task that has failed and is not over: attempts that failed so far, and when the next may start."""

    failed: int
    not_before_ms: int


class Retried(msgspec.Struct, frozen=True, array_like=True):
    """What a retry has of the runs before it: results that are there at once, in log order, and what its idempotency keys begin with.

    `of` is the run that was retried, `first` the first one of the chain. `keys`: steps whose key begins with another run than `first`, because they are done a
    second time on purpose.
    """

    of: str
    first: str
    copied: tuple[Copied, ...]
    keys: dict[str, str]

    def key(self, task: str, step: str) -> str:
        """The idempotency key of a step; `task` is the step itself, or the task that it undoes."""
        return f"{self.keys.get(task, self.first)}{step}"


class RunState(msgspec.Struct, array_like=True):
    """One run that has not ended. The field order is the format of `run_bytes.py`: fields are added at the end, with a default."""

    id: str
    offset: int  # of its start
    size: int  # bytes of its start's record
    identity: Identity
    start: Start
    started_at_ms: int  # append time of the start
    began_at_ms: int  # when its turn came: the same, or when the run before it in the queue of its key ended
    phase: Phase
    clock_ms: int
    rests: bool = False  # it waits for its timers alone: nothing wakes it before the first of them, but a record
    left: bool = False  # its start lies in the log alone: `open_runs.py`. Never in a checkpoint
    timers: dict[str, int] = {}  # armed ones, by due time
    joined: int = 0  # starts that found this run open and were noted on it
    parked: RunParked | None = None
    history: list[tuple[Woke, int]] = []  # what its coroutine has noticed, with append times
    history_bytes: int = 0
    tries: dict[str, StepTries] = {}
    settled: set[str] = set()  # steps that are over
    retried: Retried | None = None
    refusals: int = 0  # outputs that were refused while it was open
    approvals: set[str] = set()  # steps at which it waits for somebody: what it asks is in the partition's state
    children: dict[str, str] = {}  # runs that its open steps await
    joiners: tuple[Parent, ...] = ()  # steps of others that await it, since their child was joined to it

    def cancelled_by(self) -> str | None:
        """The reason of a cancel command that the run has got, or None."""
        return next((record.reason or "cancelled" for record, _ in self.history if isinstance(record, Cancel)), None)

    @property
    def sleeps(self) -> Iterable[str]:
        """Steps whose timers are no deadlines of approvals."""
        return self.timers.keys() - self.approvals if self.approvals else self.timers

    @property
    def slot(self) -> tuple[str, str, str]:
        """What conflict policies compare."""
        return (self.start.namespace, self.start.workflow, self.start.key or "")
