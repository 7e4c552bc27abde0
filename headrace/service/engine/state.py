"""State: what the records of one run-log partition mean so far. Changed by `fold.py` alone; refolding the log gives the same state.

start ──► OPEN ──────────────► (ended, gone) ──► outbox entries may remain
  │        ▲ │ park    cancel ▲
  │        │ ▼                │
  │ key    PARKED ────────────┘
  ▼ taken  (resume: OPEN)
QUEUED ──► OPEN when the open run of its key ends
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec

from headrace.service.engine.dedupe import Dedupe
from headrace.service.engine.gate import Gate
from headrace.topics.command import Cancel, Start
from headrace.topics.identity import Coordinates, Identity
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutputRefused,
    RunParked,
    StepsCancelled,
    TimerFired,
)

Woke = AttemptSucceeded | AttemptFailed | TimerFired | StepsCancelled | Emitted | OutputRefused | Cancel
"""The records that a run's coroutine may notice."""


class Phase(StrEnum):
    """A run's place in the picture above. Ended runs are not in the state."""

    OPEN = "open"
    QUEUED = "queued"
    PARKED = "parked"


class StepTries(msgspec.Struct):
    """A task that has failed and is not over: attempts that failed so far, and when the next may start."""

    failed: int
    not_before_ms: int


class RunState(msgspec.Struct):
    """One run that has not ended."""

    id: str
    offset: int  # of its start
    size: int  # bytes of its start's record
    identity: Identity
    start: Start
    started_at_ms: int  # append time of the start
    began_at_ms: int  # when its turn came: the same, or when the run before it in the queue of its key ended
    phase: Phase
    clock_ms: int
    history: list[tuple[Woke, int]] = []  # what its coroutine has noticed, with append times
    history_bytes: int = 0
    tries: dict[str, StepTries] = {}
    settled: set[str] = set()  # steps that are over
    timers: dict[str, int] = {}  # armed ones, by due time
    parked: RunParked | None = None
    joined: int = 0  # starts that found this run open and were noted on it

    def cancelled_by(self) -> str | None:
        """The reason of a cancel command that the run has got, or None."""
        return next((record.reason or "cancelled" for record, _ in self.history if isinstance(record, Cancel)), None)

    @property
    def slot(self) -> tuple[str, str, str]:
        """What conflict policies compare."""
        return (self.start.namespace, self.start.workflow, self.start.key or "")


class KeySlot(msgspec.Struct):
    """A key with an open run, and the starts that wait for it."""

    open: str
    queued: deque[str]


class Output(msgspec.Struct, frozen=True, gc=False):
    """An event on its way to a topic."""

    id: str
    run: str
    emitted: Emitted
    workflow: str
    namespace: str
    run_key: str
    origin: tuple[str, int, int] | None  # the source record
    event_at_ms: int | None
    traceparent: str | None
    tracestate: str | None
    at_ms: int  # append time of the record that put it here: the event's CloudEvents time


class Forward(msgspec.Struct, frozen=True, gc=False):
    """A start on its way to the partition of its key."""

    id: str
    partition: int
    identity: Coordinates  # without floor: that is known when it is sent
    start: Start


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A start that its policy rejected, on its way to the dead letters of its source."""

    id: str
    start: Start
    open_run: str


class RefusedOutput(msgspec.Struct, frozen=True, gc=False):
    """An ended run's output that its topic refused, on its way to `<app>.dlq`."""

    id: str
    output: Output
    code: str
    message: str


OutboxEntry = Output | Forward | Refusal | RefusedOutput


class Given(msgspec.Struct, frozen=True, gc=False):
    """An attempt that ran while its owner gave the partition away. Its successor leaves it alone until then."""

    number: int
    until_ms: int


class PartitionState(msgspec.Struct):
    """Everything one run-log partition says. `next_offset` is the first offset not folded yet."""

    partition: int
    partitions: int
    topic: str
    client_retention_ms: int
    next_offset: int = 0
    clock_ms: int = 0
    gate: Gate = msgspec.field(default_factory=Gate)
    dedupe: Dedupe = msgspec.field(default_factory=Dedupe)
    runs: dict[str, RunState] = {}
    slots: dict[tuple[str, str, str], KeySlot] = {}
    outbox: dict[str, OutboxEntry] = {}
    given: dict[tuple[str, str], Given] = {}  # attempts that a release listed and whose result is still awaited
