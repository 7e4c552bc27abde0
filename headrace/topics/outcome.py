"""Outcomes: records of the run log that only the owner appends, each under its token with the next seq.

What is not here did not happen: a run moves on only when its outcome was read back and accepted. Released meanings never change.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from headrace.topics.errors import Cause
from headrace.topics.on_conflict import OnConflict
from headrace.topics.schedule import ScheduleDefinition


class RunStatus(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    COMPENSATED = "compensated"  # the body failed and every finished task with an undo was undone


class ParkReason(StrEnum):
    """Why a run was taken out of progress."""

    NONDETERMINISTIC = "nondeterministic"
    POISON = "poison"


class AttemptSucceeded(
    msgspec.Struct, frozen=True, tag_field="is", tag="attempt.succeeded", omit_defaults=True, gc=False
):
    """A task has its result; it is never run again. `duration_ms` is handler time."""

    run: str
    step: str
    handler: str
    number: int
    result: msgspec.Raw
    started_at_ms: int
    duration_ms: float


class AttemptFailed(msgspec.Struct, frozen=True, tag_field="is", tag="attempt.failed", omit_defaults=True, gc=False):
    """An attempt ended without a result.

    `retry_after_ms` is the owner's decision by the retry policy of its code: wait this long after this record's timestamp and try again. None: the task failed
    for good. The decision is in the record, so that replays need no policy.
    """

    run: str
    step: str
    handler: str
    number: int
    cause: Cause
    error: str  # the exception's class, as text
    message: str  # for people; no code branches on it
    started_at_ms: int
    duration_ms: float
    retry_after_ms: int | None = None


class TimerArmed(msgspec.Struct, frozen=True, tag_field="is", tag="timer.armed", omit_defaults=True, gc=False):
    """The run sleeps until `due_at_ms`. For readers without the run's code; a timer is derived from the code and the run's clock anyway.

    `rests_at`: the run has nothing else open but timers that the log knows, after so many records that it has noticed. If it has noticed no other by then, it
    rests: whoever takes over need not replay it before it notices the next one.
    """

    run: str
    step: str
    due_at_ms: int
    rests_at: int = -1


class TimerFired(msgspec.Struct, frozen=True, tag_field="is", tag="timer.fired", gc=False):
    """A timer is due. Counts only if this record's own timestamp is not before `due_at_ms`. Step `/timeout` is the run's own.

    Of an approval's step: nobody has decided in time.
    """

    run: str
    step: str
    due_at_ms: int


class ApprovalRequested(
    msgspec.Struct, frozen=True, tag_field="is", tag="approval.requested", omit_defaults=True, gc=False
):
    """The run waits for somebody who has one of the roles (none: for anybody) to approve or reject, until `due_at_ms` (None: for ever).

    Asked again, with another title, other roles or another deadline, by code that was changed, it is the same approval; the newest counts. `rests_at` as in
    `TimerArmed`. Its expiry is a `TimerFired`.
    """

    run: str
    step: str
    title: str = ""
    roles: tuple[str, ...] = ()
    due_at_ms: int | None = None
    rests_at: int = -1


class StepsCancelled(msgspec.Struct, frozen=True, tag_field="is", tag="steps.cancelled", gc=False):
    """Steps that the run gave up; their later results are skipped."""

    run: str
    steps: tuple[str, ...]


class Emitted(msgspec.Struct, frozen=True, tag_field="is", tag="emitted", omit_defaults=True, gc=False):
    """An event is in the outbox: it leaves for `topic`, however often the owner dies. Its CloudEvents id is `<run><step>`."""

    run: str
    step: str
    topic: str
    type: str
    data: msgspec.Raw
    key: str | None = None
    subject: str | None = None


class ChildStarted(msgspec.Struct, frozen=True, tag_field="is", tag="child.started", omit_defaults=True, gc=False):
    """The start of a child run is in the outbox, for the partition of its key, or of this step if it has none.

    Its run id derives from this record's place. `awaited`: the child's end is the step's result; else its id is, now. The context is the parent's anchor.
    """

    run: str
    step: str
    namespace: str
    workflow: str
    version: str
    input: msgspec.Raw
    awaited: bool
    key: str | None = None
    policy: OnConflict = OnConflict.ALLOW
    timeout_ms: int | None = None
    traceparent: str | None = None
    tracestate: str | None = None


class Sent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An outbox entry was acknowledged where it went."""

    entry: str
    partition: int
    offset: int


class OutboxProgress(msgspec.Struct, frozen=True, tag_field="is", tag="outbox.progress", gc=False):
    """Entries that left the outbox."""

    sent: tuple[Sent, ...]


class OutputRefused(msgspec.Struct, frozen=True, tag_field="is", tag="output.refused", gc=False):
    """A topic will never take this entry (three tries, alone). An open run fails, typed; an ended one stays as it is and the output becomes a dead letter."""

    entry: str
    code: str
    message: str


class RunningAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that its owner still runs while it gives the partition away."""

    run: str
    step: str
    number: int


class AttemptsGiven(msgspec.Struct, frozen=True, tag_field="is", tag="attempts.given", gc=False):
    """The owner is about to release, and still runs these attempts besides those that the release lists: more than one record holds."""

    attempts: tuple[RunningAttempt, ...]
    grace_ms: int


class RunEnded(msgspec.Struct, frozen=True, tag_field="is", tag="run.ended", omit_defaults=True, gc=False):
    """The one terminal record of a run."""

    run: str
    status: RunStatus
    result: msgspec.Raw = msgspec.Raw(b"null")  # of a run that succeeded
    error: str = ""
    message: str = ""
    failed_step: str = ""
    undone: int = 0  # compensations that succeeded
    undo_failed: int = 0


class RunParked(msgspec.Struct, frozen=True, tag_field="is", tag="run.parked", omit_defaults=True, gc=False):
    """The run is taken out of progress until a resume or cancel. `expected` is what the log says, `found` what the code did."""

    run: str
    reason: ParkReason
    step: str = ""
    expected: str = ""
    found: str = ""


class CheckpointChunk(msgspec.Struct, frozen=True, tag_field="is", tag="checkpoint.chunk", gc=False):
    """A piece of a checkpoint: the partition's whole state as of `as_of`, the offset of the last record that is in it.

    Chunks of one checkpoint have one token and one `as_of`, and come in the order of `index`, from 0 on, with other outcomes between them. The checkpoint
    counts once all of them, `last` included, were accepted. What an item means is said in `service/engine/checkpoint.py`.
    """

    as_of: int
    index: int
    last: bool
    items: tuple[msgspec.Raw, ...]


class RunProbed(msgspec.Struct, frozen=True, tag_field="is", tag="run.probed", gc=False):
    """The owner is about to wake this run, and it has not proven itself: if the owner dies now, the run may be why."""

    run: str


class ProbePassed(msgspec.Struct, frozen=True, tag_field="is", tag="probe.passed", gc=False):
    """A probed run was woken and waits now, without an outcome that would show it."""

    run: str


class ScheduleSeen(msgspec.Struct, frozen=True, tag_field="is", tag="schedule.seen", gc=False):
    """The owner's code has this schedule. The first time it becomes active, with slots after this record; later its definition is replaced."""

    schedule: str
    definition: ScheduleDefinition


class SlotsMissed(msgspec.Struct, frozen=True, tag_field="is", tag="schedule.missed", gc=False):
    """`count` slots after `after_ms`, up to and including `until_ms`, start nothing, by the schedule's misfire rule.

    Counts only if `after_ms` is the schedule's newest slot (compare and set), and this record's own timestamp is not before `due_ms`: when the slot that
    comes instead is due, or these are too late.
    """

    schedule: str
    after_ms: int
    until_ms: int
    due_ms: int
    count: int


class ScheduleUnnamed(msgspec.Struct, frozen=True, tag_field="is", tag="schedule.unnamed", gc=False):
    """No definition that the owner has loaded names this schedule. The second such record, long after the first, forgets it."""

    schedule: str


Outcome = (
    AttemptSucceeded
    | AttemptFailed
    | TimerArmed
    | TimerFired
    | ApprovalRequested
    | StepsCancelled
    | Emitted
    | ChildStarted
    | OutboxProgress
    | OutputRefused
    | AttemptsGiven
    | RunEnded
    | RunParked
    | CheckpointChunk
    | RunProbed
    | ProbePassed
    | ScheduleSeen
    | SlotsMissed
    | ScheduleUnnamed
)
