"""What a record may change: the open runs and the key slots that the fold would look up for it.

A checkpoint that is being written captures these before the record is folded. More than what really changes does no harm, less would put the future into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

from headrace.service.engine.retry import kept_of
from headrace.service.engine.state import Output, PartitionState
from headrace.topics.command import (
    Approve,
    Cancel,
    ChildEnded,
    Deliver,
    Dismiss,
    Epoch,
    PauseSchedule,
    Resume,
    ResumeSchedule,
    Retry,
    Start,
)
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptsGiven,
    AttemptSucceeded,
    CheckpointChunk,
    ChildStarted,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    ProbePassed,
    RunEnded,
    RunParked,
    RunProbed,
    ScheduleSeen,
    ScheduleUnnamed,
    SlotsMissed,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.topics.command import Command
    from headrace.topics.run_record import RunRecord

Slot = tuple[str, str, str]
"""A key with an open run: namespace, workflow, key."""


class Touched(NamedTuple):
    """Run ids (some may not be open) and slots (some may not exist)."""

    runs: Iterable[str] = ()
    slots: Iterable[Slot] = ()


NOTHING = Touched()


def touched(state: PartitionState, record: RunRecord) -> Touched:
    """What `fold(state, ..., record)` may change, whether or not the record counts."""
    match record:
        case OutcomeRecord(body=body):
            return _by_outcome(state, body)
        case CommandRecord(body=body):
            return _by_command(state, body)
        case Announce() | Release():
            return NOTHING
        case _:
            assert_never(record)


def _by_command(state: PartitionState, command: Command) -> Touched:
    match command:
        case Start() as start:
            key = start.contended_key
            if key is None:
                return NOTHING
            slot = (start.namespace, start.workflow, key)
            held = state.slots.get(slot)
            return Touched((held.open,), (slot,)) if held is not None else NOTHING
        case Deliver(result=result):
            return Touched((result.run,))
        case Cancel(run=run):
            return _with_slot(state, run)
        case Resume(run=run) | Approve(run=run) | ChildEnded(run=run):
            return Touched((run,))
        case Retry(run=run):
            return _by_retry(state, run)
        case Dismiss() | Epoch() | PauseSchedule() | ResumeSchedule():
            return NOTHING
        case _:
            assert_never(command)


def _by_retry(state: PartitionState, id_: str) -> Touched:
    """Beside the new run, the slot in which it is queued."""
    failed = state.failed.get(id_)
    if failed is None:
        return NOTHING
    start = kept_of(failed).start
    key = start.contended_key
    if key is None:
        return NOTHING
    slot = (start.namespace, start.workflow, key)
    return Touched((), (slot,)) if slot in state.slots else NOTHING


def _by_outcome(state: PartitionState, outcome: Outcome) -> Touched:
    match outcome:
        case (
            AttemptSucceeded(run=run)
            | AttemptFailed(run=run)
            | TimerArmed(run=run)
            | TimerFired(run=run)
            | ApprovalRequested(run=run)
            | StepsCancelled(run=run)
            | Emitted(run=run)
            | ChildStarted(run=run)
            | RunParked(run=run)
        ):
            return Touched((run,))
        case RunEnded(run=run):
            return _with_slot(state, run)
        case OutputRefused(entry=entry):
            output = state.outbox.get(entry)
            return Touched((output.run,)) if isinstance(output, Output) else NOTHING
        case AttemptsGiven() | OutboxProgress() | CheckpointChunk() | RunProbed() | ProbePassed():
            return NOTHING
        case ScheduleSeen() | SlotsMissed() | ScheduleUnnamed():
            return NOTHING
        case _:
            assert_never(outcome)


def _with_slot(state: PartitionState, id_: str) -> Touched:
    """The run, its slot, and the run whose turn may come."""
    run = state.runs.get(id_)
    slot = None if run is None else state.slots.get(run.slot)
    if run is None or slot is None:
        return Touched((id_,))
    following = (slot.queued[0],) if slot.queued else ()
    return Touched((id_, *following), (run.slot,))
