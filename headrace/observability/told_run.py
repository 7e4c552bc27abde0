"""What is told of runs, their steps, and the schedules that start them. See `observer.py` for what holds of every struct."""

from __future__ import annotations

import msgspec

from headrace.observability.label import AbandonReason, Ending, MissReason, TriggerKind
from headrace.topics.approval import ApprovalEnding
from headrace.topics.errors import Cause
from headrace.topics.outcome import ParkReason, RunStatus


class RunStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run was admitted: its first instructions are being carried out. Told once in a run's life."""

    run: str
    workflow: str
    version: str
    trigger: TriggerKind
    started_at_ms: int
    key: str | None = None
    topic: str | None = None  # the source record, if there is one
    partition: int | None = None
    offset: int | None = None
    event_id: str | None = None
    parent: str | None = None  # the run whose child it is
    start_delay_ms: float | None = None  # source record time (else command time) to now
    traceparent: str | None = None  # of the run's anchor, see traces.py
    producer_traceparent: str | None = None
    tracestate: str | None = None


class RunFinished(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The terminal record was read back."""

    run: str
    workflow: str
    status: RunStatus
    started_at_ms: int
    duration_ms: float  # start command's append to terminal record's append
    key: str | None = None
    version: str = ""
    attempts: int = 0  # of all tasks
    retries: int = 0
    error: str = ""
    message: str = ""
    failed_step: str = ""
    traceparent: str | None = None
    tracestate: str | None = None


class RunParked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run was taken out of progress. `expected` is what the log says, `found` what the code did."""

    run: str
    workflow: str
    reason: ParkReason
    step: str = ""
    expected: str = ""
    found: str = ""
    traceparent: str | None = None


class RunHeld(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An open run waits: the version of its workflow is not loaded here."""

    run: str
    workflow: str
    version: str
    traceparent: str | None = None  # of the run's anchor


class RunResumed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A parked run goes on."""

    run: str
    workflow: str
    traceparent: str | None = None  # of the run's anchor


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A handler begins.

    Nobody counts these (see `AttemptEnded`); skip the call unless `FanOut.listens("attempt_started")`.
    """

    run: str
    workflow: str
    step: str
    handler: str
    number: int
    traceparent: str | None = None  # of the run's anchor


class AttemptEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt is over.

    `duration_ms` is handler time, without waiting in a pool; `start_delay_ms` is ready to started, waits for policies
    included.
    """

    run: str
    workflow: str
    step: str
    handler: str
    number: int
    ending: Ending
    started_at_ms: int
    duration_ms: float
    start_delay_ms: float = 0.0
    cause: Cause | None = None
    error: str = ""  # the exception's class
    message: str = ""
    code: str = ""
    retry_after_ms: int | None = None  # None: no further attempt
    compensation: bool = False
    traceparent: str | None = None  # of the run's anchor
    tracestate: str | None = None


class CompensationEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An undo is over for good (after its retries)."""

    run: str
    workflow: str
    step: str
    handler: str
    ending: Ending
    traceparent: str | None = None


class HandlerAbandoned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A handler did not end when it had to; the owner no longer waits for it. `waited_ms` is how long it was given."""

    run: str
    workflow: str
    step: str
    handler: str
    number: int
    reason: AbandonReason
    waited_ms: float
    traceparent: str | None = None  # of the run's anchor


class TimerArmed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run sleeps until `due_at_ms`."""

    run: str
    workflow: str
    step: str
    due_at_ms: int
    traceparent: str | None = None  # of the run's anchor


class ScheduleFired(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The start of a slot was read back. `late_ms` is from the slot to the start's append."""

    schedule: str
    workflow: str
    run: str
    slot_ms: int
    late_ms: float


class ScheduleMissed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`slots` of a schedule, the last of them at `until_ms`, start nothing."""

    schedule: str
    workflow: str
    slots: int
    until_ms: int
    reason: MissReason
    code: str = ""  # HR number, where a limit left them out
    message: str = ""


class SchedulePaused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Somebody paused a schedule."""

    schedule: str
    workflow: str


class ScheduleResumed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A paused schedule goes on, with its next slot."""

    schedule: str
    workflow: str


class TimerFired(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sleep is over. `late_ms` is due time to the append time of the outcome that was read back."""

    run: str
    workflow: str
    step: str
    armed_at_ms: int
    due_at_ms: int
    late_ms: float
    traceparent: str | None = None
    tracestate: str | None = None


class ApprovalRequested(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run waits for somebody with one of these roles (none: anybody). `due_at_ms` None: for ever."""

    run: str
    workflow: str
    step: str
    approval: str  # its id
    roles: tuple[str, ...]
    due_at_ms: int | None
    traceparent: str | None = None  # of the run's anchor


class ApprovalDecided(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An approval is over: somebody has decided, it has expired, or the run does not want it any more. `by` is empty unless somebody has decided."""

    run: str
    workflow: str
    step: str
    approval: str  # its id
    ending: ApprovalEnding
    by: str
    requested_at_ms: int
    decided_at_ms: int
    traceparent: str | None = None
    tracestate: str | None = None
