"""Instructions: what the fold asks the shell to do. Carried out by `service/owner.py` after read-back; ignored while a log is replayed as data."""

from __future__ import annotations

import msgspec

from headrace.service.engine.approval import ApprovalRequest
from headrace.service.engine.run_state import RunState, Woke
from headrace.service.engine.schedule_state import ScheduleState
from headrace.service.engine.state import OutboxEntry
from headrace.topics.approval import ApprovalEnding
from headrace.topics.command import PauseSchedule, ResumeSchedule, Start
from headrace.topics.outcome import AttemptFailed, RunEnded, RunParked, ScheduleSeen, ScheduleUnnamed, SlotsMissed


class Begin(msgspec.Struct, frozen=True, gc=False):
    """A run's turn has come: admit it when there is room."""

    run: RunState


class Advance(msgspec.Struct, frozen=True, gc=False):
    """Wake the run with a record that its coroutine may notice."""

    run: RunState
    record: Woke
    at_ms: int


class TryAgain(msgspec.Struct, frozen=True, gc=False):
    """Start the next attempt of a task, not before `due_at_ms`. `failed` is None for an attempt that was abandoned."""

    run: RunState
    step: str
    number: int
    due_at_ms: int
    failed: AttemptFailed | None


class Rearm(msgspec.Struct, frozen=True, gc=False):
    """A timer's outcome came before its due time by the log's clock: arm it again, `early_ms` later."""

    run: RunState
    step: str
    due_at_ms: int
    early_ms: int


class Send(msgspec.Struct, frozen=True, gc=False):
    """An entry is in the outbox."""

    entry: OutboxEntry


class Close(msgspec.Struct, frozen=True, gc=False):
    """The run has ended: cancel its attempts, forget its timers."""

    run: RunState
    ended: RunEnded
    at_ms: int


class Park(msgspec.Struct, frozen=True, gc=False):
    """The run is parked: cancel its attempts, forget its timers and its coroutine."""

    run: RunState
    parked: RunParked


class Unpark(msgspec.Struct, frozen=True, gc=False):
    """The run may try again: rebuild it from its history."""

    run: RunState


class Probe(msgspec.Struct, frozen=True, gc=False):
    """That the run is about to be woken is in the log: wake it."""

    run: str


class Proven(msgspec.Struct, frozen=True, gc=False):
    """The run is not on trial any more: the next one may be probed."""

    run: str


class ReadAnew(msgspec.Struct, frozen=True, gc=False):
    """A source topic has a new replay epoch: its router goes to where that begins."""

    topic: str


class Queued(msgspec.Struct, frozen=True, gc=False):
    """A start waits until the open run of its key ends; its bytes are kept meanwhile."""

    run: RunState


class Joined(msgspec.Struct, frozen=True, gc=False):
    """A start was noted on the open run of its key."""

    run: RunState
    start: Start


class Requested(msgspec.Struct, frozen=True, gc=False):
    """The run waits for somebody: for people to see."""

    run: RunState
    request: ApprovalRequest


class Decided(msgspec.Struct, frozen=True, gc=False):
    """An approval is over: for people to see. The run is woken by the record that ended it."""

    run: RunState
    request: ApprovalRequest
    ending: ApprovalEnding
    at_ms: int
    by: str


class Scheduled(msgspec.Struct, frozen=True, gc=False):
    """A record about a schedule was read, at `at_ms`: look at the schedule again. `after` is what it became; None: it is not known (any more), or is as it was.

    `early_ms`: the record came so long before it may count.
    """

    schedule: str
    record: Start | ScheduleSeen | SlotsMissed | ScheduleUnnamed | PauseSchedule | ResumeSchedule
    at_ms: int
    early_ms: int = 0
    before: ScheduleState | None = None
    after: ScheduleState | None = None


Instruction = (
    Begin
    | Advance
    | TryAgain
    | Rearm
    | Send
    | Close
    | Park
    | Unpark
    | Probe
    | Proven
    | ReadAnew
    | Queued
    | Joined
    | Requested
    | Decided
    | Scheduled
)
