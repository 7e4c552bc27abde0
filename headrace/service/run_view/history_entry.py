"""`HistoryEntry`: what one record of the run log is to a run, as `run history` prints it; and which runs a record is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.instruction import Begin, Send
from headrace.service.engine.state import Message
from headrace.topics.command import (
    Abandoned,
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
from headrace.topics.event import format_time
from headrace.topics.identity import run_id
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptsGiven,
    AttemptSucceeded,
    CheckpointChunk,
    ChildStarted,
    Emitted,
    OutboxProgress,
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
from headrace.topics.run_record import CommandRecord, OutcomeRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.scan import Seen
    from headrace.topics.command import Command
    from headrace.topics.outcome import Outcome


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the run log. `effect` is `accepted`, `skipped` (the record does not count, see `reason`), `none`
    (it came too late) or `checkpoint` (the record was trimmed, this is known of it).

    `record` is the whole record as it is in the log. This is the JSON of `run history`; keys are added, never renamed.
    """

    offset: int
    time: str
    kind: str
    step: str | None = None
    handler: str | None = None
    attempt: int | None = None
    duration_ms: float | None = None
    cause: str | None = None
    error: str | None = None
    message: str | None = None
    retry_after_ms: int | None = None
    detail: str = ""
    effect: str = "accepted"
    reason: str | None = None
    record: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


def runs_of(seen: Seen) -> list[str]:
    """The runs that a record may be about, each once: those that it names, and those that the fold did something with."""
    found: dict[str, None] = {}
    record = seen.record
    if isinstance(record, CommandRecord | OutcomeRecord):
        body = record.body
        named = getattr(body, "run", None)
        if isinstance(named, str):
            found[named] = None
        match body:
            case Start() | Retry() if isinstance(record, CommandRecord):
                found[run_id(seen.state.partition, record.id)] = None
            case Deliver(result=result):
                found[result.run] = None
            case OutboxProgress(sent=sent):
                found |= dict.fromkeys(one.entry.partition("/")[0] for one in sent)
            case OutputRefused(entry=entry):
                found[entry.partition("/")[0]] = None
            case _:
                pass
    for instruction in seen.folded.instructions:
        run = getattr(instruction, "run", None)
        if run is not None:
            found[run if isinstance(run, str) else run.id] = None
    return list(found)


def entry_of(seen: Seen, run: str) -> HistoryEntry | None:
    """The entry that a record makes in the run's history, if it is about the run."""
    record = seen.record
    entry: HistoryEntry | None = None
    if isinstance(record, CommandRecord):
        if _is_about(seen, record, run):
            entry = _command(seen, record.body, run, run_id(seen.state.partition, record.id))
    elif isinstance(record, OutcomeRecord):
        entry = _outcome(seen, record.body, run)
    if entry is None:
        return None
    return msgspec.structs.replace(
        entry,
        effect="skipped" if seen.folded.skip else "none" if seen.folded.without_effect else "accepted",
        reason=str(seen.folded.skip) if seen.folded.skip else None,
        record=msgspec.Raw(seen.raw.value or b"null"),
    )


def copied_to(seen: Seen, run: str) -> Iterator[HistoryEntry]:
    """What the run was given as the retry of another, if this record made it one."""
    if not isinstance(seen.record, CommandRecord) or not isinstance(seen.record.body, Retry):
        return
    state = seen.state.runs.get(run)
    retried = state.retried if state is not None and state.offset == seen.offset else None
    for record in retried.copied if retried is not None else ():
        task = record if isinstance(record, AttemptSucceeded) else None
        yield HistoryEntry(
            offset=seen.offset,
            time=format_time(seen.timestamp_ms),
            kind="copied",
            step=record.step,
            handler=task.handler if task is not None else None,
            detail=f"from run {record.run}",
        )


def _is_about(seen: Seen, record: CommandRecord, wanted: str) -> bool:
    match record.body:
        case Start():
            return run_id(seen.state.partition, record.id) == wanted
        case Deliver(result=result):
            return result.run == wanted
        case Epoch() | PauseSchedule() | ResumeSchedule():
            return False
        case Cancel(run=run) | Resume(run=run) | Dismiss(run=run) | Approve(run=run) | ChildEnded(run=run):
            return run == wanted
        case Retry(run=run):
            return wanted in {run, run_id(seen.state.partition, record.id)}


def known_of(run: RunState, state: PartitionState) -> Iterator[HistoryEntry]:
    """What is left of a run's trimmed records: its start, and which steps were over."""
    yield HistoryEntry(
        offset=run.offset,
        time=format_time(run.started_at_ms),
        kind="start",
        detail=f"{run.start.workflow} version {run.start.version}",
        effect="checkpoint",
    )
    over = ", ".join(sorted(run.settled))
    yield HistoryEntry(
        offset=state.next_offset - 1,
        time=format_time(state.clock_ms),
        kind="trimmed",
        detail=f"records up to here are in a checkpoint; steps that were over: {over or 'none'}",
        effect="checkpoint",
    )


def _command(seen: Seen, body: Command, run: str, started: str) -> HistoryEntry:
    """`started` is the run that this command starts, if it is one that does."""
    offset, time = seen.offset, format_time(seen.timestamp_ms)
    match body:
        case Start():
            event = body.event
            source = "" if event is None else f" by {event.type} of {event.topic}/{event.partition}/{event.offset}"
            key = "" if body.key is None else f", key {body.key}"
            parent = "" if body.parent is None else f", child of {body.parent.run} at {body.parent.step}"
            slot = "" if body.slot is None else f" by {body.slot.schedule} at {format_time(body.slot.at_ms)}"
            detail = f"{body.workflow} version {body.version}{key}{source}{slot}{parent}"
            return HistoryEntry(offset=offset, time=time, kind="start", detail=detail)
        case Deliver(result=result):
            if not isinstance(result, Abandoned):
                return msgspec.structs.replace(_attempt(seen, result), detail="delivered after a release")
            return HistoryEntry(offset=offset, time=time, kind="abandoned", step=result.step, attempt=result.number)
        case Cancel(reason=reason):
            return HistoryEntry(offset=offset, time=time, kind="cancel", detail=reason)
        case ChildEnded():
            return HistoryEntry(
                offset=offset,
                time=time,
                kind="child.ended",
                step=body.step,
                cause=None if body.cause is None else str(body.cause),
                error=body.error or None,
                message=body.message or None,
                detail=f"run {body.child} of {body.workflow}: {body.status}",
            )
        case Resume():
            return HistoryEntry(offset=offset, time=time, kind="resume")
        case Retry(run=of, from_step=from_step):
            detail = f"as run {started}" if run == of else f"of run {of}"
            return HistoryEntry(offset=offset, time=time, kind="retry", step=from_step or None, detail=detail)
        case Dismiss():
            return HistoryEntry(offset=offset, time=time, kind="dismiss")
        case Approve(step=step, decision=decision, by=by, note=note):
            detail = f"{decision} by {by}{f': {note}' if note else ''}"
            return HistoryEntry(offset=offset, time=time, kind="approve", step=step, detail=detail)
        case Epoch(topic=topic, epoch=epoch):
            return HistoryEntry(offset=offset, time=time, kind="epoch", detail=f"{topic}: {epoch}")
        case PauseSchedule(schedule=schedule) | ResumeSchedule(schedule=schedule):
            return HistoryEntry(offset=offset, time=time, kind="schedule", detail=schedule)


def _outcome(seen: Seen, body: Outcome, run: str) -> HistoryEntry | None:
    """The entry of an outcome, or None if it is about other runs."""
    offset, time = seen.offset, format_time(seen.timestamp_ms)
    match body:
        case CheckpointChunk() | AttemptsGiven() | ScheduleSeen() | SlotsMissed() | ScheduleUnnamed():
            return None
        case OutboxProgress(sent=sent):
            mine = [one for one in sent if one.entry.startswith(f"{run}/")]
            places = ", ".join(f"{one.entry.removeprefix(run)} at {one.partition}/{one.offset}" for one in mine)
            return HistoryEntry(offset=offset, time=time, kind="outbox.sent", detail=places) if mine else None
        case OutputRefused(entry=entry):
            if not entry.startswith(f"{run}/"):
                return None
            return HistoryEntry(
                offset=offset,
                time=time,
                kind="output.refused",
                step=entry.removeprefix(run),
                error=body.code,
                message=body.message,
            )
        case RunEnded() if body.run != run:
            begun = any(isinstance(one, Begin) and one.run.id == run for one in seen.folded.instructions)
            detail = f"run {body.run} ended, it was this run's turn"
            return HistoryEntry(offset=offset, time=time, kind="queue.left", detail=detail) if begun else None
        case _ if body.run != run:
            return None
        case AttemptSucceeded() | AttemptFailed():
            return _attempt(seen, body)
        case TimerArmed(step=step, due_at_ms=due) | TimerFired(step=step, due_at_ms=due):
            kind = "timer.armed" if isinstance(body, TimerArmed) else "timer.fired"
            return HistoryEntry(offset=offset, time=time, kind=kind, step=step, detail=f"due {format_time(due)}")
        case ApprovalRequested(step=step, title=title, roles=roles, due_at_ms=due_at_ms):
            by = f"by {', '.join(roles)}" if roles else "by anybody"
            until = "" if due_at_ms is None else f"until {format_time(due_at_ms)}"
            detail = "; ".join(filter(None, (title, by, until)))
            return HistoryEntry(offset=offset, time=time, kind="approval.requested", step=step, detail=detail)
        case StepsCancelled(steps=steps):
            return HistoryEntry(offset=offset, time=time, kind="steps.cancelled", detail=", ".join(steps))
        case Emitted():
            detail = f"{body.type} to {body.topic}"
            return HistoryEntry(offset=offset, time=time, kind="emitted", step=body.step, detail=detail)
        case ChildStarted():
            waits = "" if body.awaited else ", detached"
            detail = f"{body.workflow} version {body.version} as run {_begun(seen) or 'of its own'}{waits}"
            return HistoryEntry(offset=offset, time=time, kind="child.started", step=body.step, detail=detail)
        case RunEnded():
            return HistoryEntry(
                offset=offset,
                time=time,
                kind="run.ended",
                step=body.failed_step or None,
                error=body.error or None,
                message=body.message or None,
                detail=str(body.status),
            )
        case RunProbed():
            detail = "several owners have died lately: woken on trial"
            return HistoryEntry(offset=offset, time=time, kind="run.probed", detail=detail)
        case ProbePassed():
            return HistoryEntry(offset=offset, time=time, kind="probe.passed", detail="it waits")
        case RunParked():
            sides = f": expected {body.expected}, found: {body.found}" if body.expected or body.found else ""
            return HistoryEntry(
                offset=offset, time=time, kind="run.parked", step=body.step or None, detail=f"{body.reason}{sides}"
            )


def _begun(seen: Seen) -> str:
    """The run that this record begins as a child; "" if it comes too late for that."""
    for instruction in seen.folded.instructions:
        if isinstance(instruction, Send) and isinstance(instruction.entry, Message):
            return run_id(instruction.entry.partition, instruction.entry.identity)
    return ""


def _attempt(seen: Seen, body: AttemptSucceeded | AttemptFailed) -> HistoryEntry:
    failed = body if isinstance(body, AttemptFailed) else None
    return HistoryEntry(
        offset=seen.offset,
        time=format_time(seen.timestamp_ms),
        kind="attempt.succeeded" if failed is None else "attempt.failed",
        step=body.step,
        handler=body.handler,
        attempt=body.number,
        duration_ms=round(body.duration_ms, 3),
        cause=None if failed is None else str(failed.cause),
        error=None if failed is None else failed.error,
        message=None if failed is None else failed.message,
        retry_after_ms=None if failed is None else failed.retry_after_ms,
    )
