"""`run history` and `run get`: all records of one run, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.instruction import Begin, Close, Send
from headrace.service.engine.run_state import ChildBegan
from headrace.service.engine.state import Message
from headrace.service.run_view.summary import RunSummary, Tallies, summary_of
from headrace.topics.approval import approval_id
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
from headrace.topics.trace_context import kept_context, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.service.engine.approval import ApprovalRequest
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


class OpenStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that waits: for a timer, for its next attempt, for somebody's decision, or for a child run. `until` is "" if that may take for ever."""

    step: str
    waits_for: str
    until: str
    approval: str = ""  # its id
    title: str = ""  # what people are asked
    roles: tuple[str, ...] = ()


class ChildRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a step began. `status` is known of one that is awaited and has ended; the run's own log has the rest."""

    step: str
    run: str
    workflow: str
    awaited: bool
    status: str | None = None


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One run in full. This is the JSON of `run get`."""

    summary: RunSummary
    input: msgspec.Raw
    result: msgspec.Raw | None
    waiting: tuple[OpenStep, ...]
    joined: int
    undone: int
    undo_failed: int
    parked_step: str
    expected: str  # what the log says, for a parked run
    found: str  # what the code did
    retry: str = ""  # the newest retry of this run
    # of its spans and log lines, if the producer's trace does not go on (telemetry.parent_from_kafka)
    trace_id: str = ""
    producer_trace_id: str = ""  # of the source record, or of the parent of a detached child
    parent: str = ""  # the run whose child this is, and the step there
    parent_step: str = ""
    children: tuple[ChildRun, ...] = ()


class RunHistory:
    """Watches one partition for one run: hand it everything seen there, in order."""

    def __init__(self, run: str, *, keep_entries: bool = True) -> None:
        self.run = run
        self.entries: list[HistoryEntry] = []
        self.detail: RunDetail | None = None
        """Set once the run has ended; see `current`."""
        self.trimmed_before = 0
        """First offset that was read, if the partition's log was trimmed."""
        self._keep = keep_entries
        self._tallies = Tallies()

    def begin(self, state: PartitionState) -> None:
        """The partition's log was trimmed: what a checkpoint says of the run stands for its first records."""
        self._tallies.begin(state)
        self.trimmed_before = state.next_offset
        run = state.runs.get(self.run)
        if run is not None and self._keep:
            self.entries += known_of(run, state)

    def see(self, seen: Seen) -> HistoryEntry | None:
        """The entry that this record makes in the run's history, if it is about the run."""
        self._tallies.see(seen)
        for instruction in seen.folded.instructions:
            if isinstance(instruction, Close):
                tally = self._tallies.take(instruction.run.id)
                if instruction.run.id == self.run:
                    summary = summary_of(instruction.run, tally, instruction.ended, instruction.at_ms)
                    self.detail = detail_of(instruction.run, summary, instruction.ended, {})
        entry = entry_of(seen, self.run)
        if entry is not None and self._keep:
            self.entries.append(entry)
            self.entries += copied_to(seen, self.run)
        return entry

    def end(self, state: PartitionState) -> None:
        """The end of the partition: describe the run as it is now."""
        self.detail = self.current(state)

    def current(self, state: PartitionState) -> RunDetail | None:
        """The run as the partition stands, or as it ended; None if it was never there."""
        run = state.runs.get(self.run)
        if run is not None:
            return detail_of(run, summary_of(run, self._tallies.of(self.run), None, None), None, state.approvals)
        failed = state.failed.get(self.run)
        if self.detail is None or failed is None:
            return self.detail
        summary = msgspec.structs.replace(self.detail.summary, retriable=True)
        return msgspec.structs.replace(self.detail, summary=summary, retry=failed.retry)


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


def _children(run: RunState) -> tuple[ChildRun, ...]:
    """As far as the run knows."""
    copied = run.retried.copied if run.retried is not None else ()
    found: dict[str, ChildRun] = {}
    for record in (*copied, *(record for record, _ in run.history)):
        if isinstance(record, ChildBegan):
            found[record.step] = ChildRun(
                step=record.step, run=record.child, workflow=record.workflow, awaited=record.awaited
            )
        elif isinstance(record, ChildEnded):
            found[record.step] = ChildRun(
                step=record.step,
                run=record.child,
                workflow=record.workflow,
                awaited=True,
                status=str(record.status),
            )
    return tuple(found.values())


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


def _asked(request: ApprovalRequest) -> OpenStep:
    due_at_ms = request.due_at_ms
    return OpenStep(
        step=request.step,
        waits_for="approval",
        until="" if due_at_ms is None else format_time(due_at_ms),
        approval=approval_id(request.run, request.step),
        title=request.title,
        roles=request.roles,
    )


def detail_of(
    run: RunState, summary: RunSummary, ended: RunEnded | None, approvals: Mapping[str, ApprovalRequest]
) -> RunDetail:
    """One run in full; without `ended` it is open. `approvals` are those of its partition's state."""
    asked = [_asked(approvals[f"{run.id}{step}"]) for step in sorted(run.approvals)] if ended is None else ()
    timers = [
        OpenStep(step=step, waits_for="timer", until=format_time(due))
        for step, due in run.timers.items()
        if step not in run.approvals
    ]
    tries = [
        OpenStep(step=step, waits_for=f"attempt {tries.failed + 1}", until=format_time(tries.not_before_ms))
        for step, tries in run.tries.items()
    ]
    awaited = [OpenStep(step=step, waits_for=f"child run {child}", until="") for step, child in run.children.items()]
    parked, parent = run.parked, run.start.parent
    producer = kept_context(run.start.traceparent, None)
    goes_on = run.start.event is None if parent is None else parent.awaited
    return RunDetail(
        summary=summary,
        input=run.start.input,
        result=None if ended is None else ended.result,
        waiting=(*timers, *tries, *asked, *awaited) if ended is None else (),
        joined=run.joined,
        undone=0 if ended is None else ended.undone,
        undo_failed=0 if ended is None else ended.undo_failed,
        parked_step="" if parked is None else parked.step,
        expected="" if parked is None else parked.expected,
        found="" if parked is None else parked.found,
        trace_id=producer.trace_id if producer is not None and goes_on else trace_id_of(run.id),
        producer_trace_id="" if producer is None else producer.trace_id,
        parent="" if parent is None else parent.run,
        parent_step="" if parent is None else parent.step,
        children=_children(run),
    )
