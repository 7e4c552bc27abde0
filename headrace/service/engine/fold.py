"""The fold: state and record in, state and instructions out. Recovery, the owner and every reader call this same function.

Pure and synchronous. Time is the record's timestamp. Runs do not influence each other here, except through keys, in log order. User code is never called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from headrace.service.engine import schedule
from headrace.service.engine.approval_fold import decide, expire, request, withdraw
from headrace.service.engine.child import child_ended, child_started, give_up_children, tell_family
from headrace.service.engine.folded import DONE, NO_EFFECT, SKIPPED, Folded, to_outbox
from headrace.service.engine.gate import Skip
from headrace.service.engine.instruction import (
    Begin,
    Close,
    Instruction,
    Park,
    Probe,
    Proven,
    ReadAnew,
    Rearm,
    Send,
    TryAgain,
    Unpark,
)
from headrace.service.engine.new_run import begin_retry, begin_start, give_key_back, leave_queue
from headrace.service.engine.retry import RETENTION_MS, forget, run_ended
from headrace.service.engine.run_state import Phase, RunState, StepTries
from headrace.service.engine.settle import settled, woken
from headrace.service.engine.state import Given, Output, PartitionState, RefusedOutput
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
from headrace.topics.identity import ClientId, Coordinates, SlotId
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
    RunStatus,
    ScheduleSeen,
    ScheduleUnnamed,
    SlotsMissed,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.topics.outcome import RunningAttempt


def fold(state: PartitionState, offset: int, timestamp_ms: int, size: int, record: RunRecord) -> Folded:
    """Advance a partition by one record. `size` is the record's bytes, for admission."""
    state.next_offset = offset + 1
    if timestamp_ms > state.clock_ms:  # noqa: PLR1730 - half of what max() costs, in every record
        state.clock_ms = timestamp_ms
    match record:
        case OutcomeRecord():
            skip = state.gate.admit(record)
            if skip is not None:
                return SKIPPED[skip]
            folded = _outcome(state, offset, timestamp_ms, size, record.body)
            return _proven(state, record.body, folded) if state.probation.suspects else folded
        case CommandRecord():
            return _command(state, offset, timestamp_ms, size, record)
        case Announce():
            open_token = state.gate.token
            skip = state.gate.announce(offset, record)
            if skip is not None:
                return SKIPPED[skip]
            state.probation.announced(record.instance, open_token, timestamp_ms)
            return DONE
        case Release():
            skip = state.gate.admit(record)
            if skip is not None:
                return SKIPPED[skip]
            until_ms = timestamp_ms + record.grace_ms
            # what an owner before this one gave away, and still runs, is not this one's to list
            given = {key: each for key, each in state.given.items() if each.until_ms > timestamp_ms}
            state.given = given | _given(state, record.attempts, until_ms)
            return DONE
        case _:
            assert_never(record)


def _given(state: PartitionState, attempts: Iterable[RunningAttempt], until_ms: int) -> dict[tuple[str, str], Given]:
    return {(each.run, each.step): Given(each.number, until_ms, state.gate.holder) for each in attempts}


# --- commands ----------------------------------------------------------------------------------------------------------


def _command(state: PartitionState, offset: int, at_ms: int, size: int, record: CommandRecord) -> Folded:
    if not state.dedupe.accept(record.id, at_ms, state.client_retention_ms):
        return SKIPPED[Skip.DUPLICATE]
    match record.body:
        case Start(event_at_ms=event_at_ms, event=event) as start:
            identity = record.id
            if event is not None and event_at_ms is not None and isinstance(identity, Coordinates):
                state.dedupe.note_record(identity, event.topic, event_at_ms)
                if (
                    start.redriven is not None
                    and identity.origin == event.topic  # one that came through another partition was asked there
                    and not state.dedupe.accept_redrive(identity, start.redriven, at_ms)
                ):
                    return SKIPPED[Skip.DUPLICATE]
            if start.slot is not None and isinstance(identity, SlotId):
                return schedule.begin_slot(state, offset, at_ms, size, identity, start, start.slot)
            return begin_start(state, offset, at_ms, size, identity, start)
        case Deliver(result=result):
            return _deliver(state, offset, at_ms, size, result)
        case Cancel() as cancel:
            return _cancel(state, at_ms, cancel)
        case ChildEnded() as ended:
            return child_ended(state, at_ms, size, ended)
        case Resume(run=run):
            return _resume(state, run)
        case Retry() as retry:
            return begin_retry(state, offset, at_ms, size, record.id, retry)
        case Dismiss(run=run):
            return NO_EFFECT if forget(state, run) is None else DONE
        case Approve() as approve:
            return decide(state, at_ms, size, approve)
        case Epoch(topic=topic, epoch=epoch, offsets=offsets):
            new = state.dedupe.begin_epoch(topic, epoch, offsets)
            return Folded(instructions=[ReadAnew(topic)]) if new else NO_EFFECT
        case PauseSchedule() | ResumeSchedule():
            return schedule.paused_or_resumed(state, at_ms, record.body)
        case _:
            assert_never(record.body)


def _deliver(
    state: PartitionState, offset: int, at_ms: int, size: int, result: AttemptSucceeded | AttemptFailed | Abandoned
) -> Folded:
    state.given.pop((result.run, result.step), None)
    if not isinstance(result, Abandoned):
        return _outcome(state, offset, at_ms, size, result)
    run = state.runs.get(result.run)
    if run is None or result.step in run.settled:
        return NO_EFFECT
    tries = run.tries.get(result.step)
    if result.number != (tries.failed if tries else 0) + 1:
        return NO_EFFECT
    if run.phase is Phase.PARKED:
        return DONE
    return Folded(instructions=[TryAgain(run, result.step, result.number, at_ms, None)])


def _cancel(state: PartitionState, at_ms: int, cancel: Cancel) -> Folded:
    run = state.runs.get(cancel.run)
    if run is None:
        return NO_EFFECT
    if run.phase is Phase.QUEUED:
        leave_queue(state, run)
        run.history.append((cancel, at_ms))  # its own end is all that it will see
        return Folded(instructions=[Begin(run)])
    was_parked = run.phase is Phase.PARKED
    run.phase, run.parked = Phase.OPEN, None
    folded = woken(run, cancel, at_ms, 0)
    return Folded(instructions=[Unpark(run)]) if was_parked else folded


def _resume(state: PartitionState, id_: str) -> Folded:
    run = state.runs.get(id_)
    if run is None or run.phase is not Phase.PARKED:
        return NO_EFFECT
    run.phase, run.parked = Phase.OPEN, None
    return Folded(instructions=[Unpark(run)])


# --- outcomes ----------------------------------------------------------------------------------------------------------


def _outcome(state: PartitionState, offset: int, at_ms: int, size: int, outcome: Outcome) -> Folded:
    match outcome:
        case AttemptSucceeded():
            run = state.runs.get(outcome.run)
            if run is None or outcome.step in run.settled:
                return NO_EFFECT
            return settled(run, outcome.step, outcome, at_ms, size)
        case AttemptFailed():
            return _failed(state, at_ms, size, outcome)
        case Emitted():
            return _emitted(state, at_ms, size, outcome)
        case OutboxProgress(sent=sent):
            for entry in sent:
                state.outbox.pop(entry.entry, None)
            return DONE
        case RunEnded():
            return _ended(state, offset, at_ms, outcome)
        case TimerFired():
            return _fired(state, at_ms, outcome)
        case TimerArmed(run=id_, step=step, due_at_ms=due_at_ms, rests_at=rests_at):
            run = state.runs.get(id_)
            if run is None or step in run.settled:
                return NO_EFFECT
            run.timers[step] = due_at_ms
            run.rests = rests_at == len(run.history)
            return DONE
        case ApprovalRequested():
            return request(state, at_ms, outcome)
        case StepsCancelled():
            return _cancelled(state, offset, at_ms, outcome)
        case ChildStarted():
            return child_started(state, offset, at_ms, size, outcome)
        case OutputRefused():
            return _refused(state, at_ms, outcome)
        case RunParked():
            run = state.runs.get(outcome.run)
            if run is None or run.phase is not Phase.OPEN or run.cancelled_by() is not None:
                return NO_EFFECT  # a cancelled run ends, whatever its code does
            run.phase, run.parked = Phase.PARKED, outcome
            return Folded(instructions=[Park(run, outcome)])
        case CheckpointChunk(as_of=as_of):
            # what it says is known already; but whoever wrote it may trim up to there, at any time
            state.runs.readable_from = max(state.runs.readable_from, as_of + 1)
            return DONE
        case AttemptsGiven(attempts=attempts, grace_ms=grace_ms):
            state.given |= _given(state, attempts, at_ms + grace_ms)
            return DONE
        case RunProbed(run=id_):
            if id_ in state.runs:
                state.probation.probed(id_, state.gate.token)
            return Folded(instructions=[Probe(id_)])
        case ProbePassed():
            return DONE
        case ScheduleSeen():
            return schedule.seen(state, at_ms, outcome)
        case SlotsMissed():
            return schedule.missed(state, at_ms, outcome)
        case ScheduleUnnamed():
            return schedule.unnamed(state, at_ms, outcome)
        case _:
            assert_never(outcome)


def _proven(state: PartitionState, outcome: Outcome, folded: Folded) -> Folded:
    """The same, and who has proven itself by it. A record of its own, for the constants are shared."""
    run = None if folded.without_effect else state.probation.proven_by(outcome)
    return folded if run is None else Folded(instructions=[Proven(run), *folded.instructions])


def _failed(state: PartitionState, at_ms: int, size: int, failed: AttemptFailed) -> Folded:
    run = state.runs.get(failed.run)
    if run is None or failed.step in run.settled:
        return NO_EFFECT
    tries = run.tries.get(failed.step)
    if failed.number != (tries.failed if tries else 0) + 1:
        return NO_EFFECT
    if failed.retry_after_ms is None:
        return settled(run, failed.step, failed, at_ms, size)
    due_at_ms = at_ms + failed.retry_after_ms
    run.tries[failed.step] = StepTries(failed=failed.number, not_before_ms=due_at_ms)
    if run.phase is Phase.PARKED:
        return DONE
    return Folded(instructions=[TryAgain(run, failed.step, failed.number + 1, due_at_ms, failed)])


def _fired(state: PartitionState, at_ms: int, fired: TimerFired) -> Folded:
    run = state.runs.get(fired.run)
    if run is None or fired.step in run.settled:
        return NO_EFFECT
    if at_ms < fired.due_at_ms:
        return Folded(instructions=[Rearm(run, fired.step, fired.due_at_ms, fired.due_at_ms - at_ms)])
    if fired.step in run.approvals:
        return expire(state, run, at_ms, fired)
    return settled(run, fired.step, fired, at_ms, 0)


def _cancelled(state: PartitionState, offset: int, at_ms: int, cancelled: StepsCancelled) -> Folded:
    run = state.runs.get(cancelled.run)
    if run is None:
        return NO_EFFECT
    steps = tuple(step for step in cancelled.steps if step not in run.settled)
    if not steps:
        return NO_EFFECT
    for step in steps:
        run.settled.add(step)
        run.tries.pop(step, None)
        run.timers.pop(step, None)
    folded = woken(run, StepsCancelled(run=run.id, steps=steps), at_ms, 0)
    if not run.approvals and not run.children:
        return folded
    withdrawn = withdraw(state, run, steps, at_ms) if run.approvals else []
    given_up = give_up_children(state, offset, run, steps) if run.children else []
    return Folded(instructions=[*withdrawn, *map(Send, given_up), *folded.instructions])


def _emitted(state: PartitionState, at_ms: int, size: int, emitted: Emitted) -> Folded:
    run = state.runs.get(emitted.run)
    if run is None or emitted.step in run.settled:
        return NO_EFFECT
    entry = _output(run, emitted, at_ms)
    state.outbox[entry.id] = entry
    folded = settled(run, emitted.step, emitted, at_ms, size)
    return Folded(instructions=[Send(entry), *folded.instructions])


def _output(run: RunState, emitted: Emitted, at_ms: int) -> Output:
    start = run.start
    event = start.event
    return Output(
        id=f"{run.id}{emitted.step}",
        run=run.id,
        emitted=emitted,
        workflow=start.workflow,
        namespace=start.namespace,
        run_key=start.key or "",
        origin=(event.topic, event.partition, event.offset) if event is not None else None,
        event_at_ms=start.event_at_ms,
        traceparent=start.traceparent,
        tracestate=start.tracestate,
        at_ms=at_ms,
        awaited=start.awaited,
    )


def _refused(state: PartitionState, at_ms: int, refused: OutputRefused) -> Folded:
    entry = state.outbox.pop(refused.entry, None)
    if not isinstance(entry, Output):
        return NO_EFFECT
    run = state.runs.get(entry.run)
    if run is not None:
        run.refusals += 1
        return woken(run, refused, at_ms, 0)
    return to_outbox(state, _letter(entry, refused))


def _letter(output: Output, refused: OutputRefused) -> RefusedOutput:
    return RefusedOutput(id=f"refused/{output.id}", output=output, code=refused.code, message=refused.message)


def _unheeded(state: PartitionState, run: RunState, ended: RunEnded) -> list[Instruction]:
    """Outputs that were refused when the run was about to end already, of something else: dead letters, as of an ended run."""
    emitted = {
        f"{run.id}{record.step}": (record, at_ms) for record, at_ms in run.history if isinstance(record, Emitted)
    }
    sent: list[Instruction] = []
    for record, _ in run.history:
        if isinstance(record, OutputRefused) and record.entry != f"{run.id}{ended.failed_step}":
            letter = _letter(_output(run, *emitted[record.entry]), record)
            state.outbox[letter.id] = letter
            sent.append(Send(letter))
    return sent


def _ended(state: PartitionState, offset: int, at_ms: int, ended: RunEnded) -> Folded:
    run = state.runs.get(ended.run)
    if run is None or run.phase is Phase.QUEUED:
        return NO_EFFECT
    del state.runs[run.id]
    if ended.status is not RunStatus.SUCCEEDED or run.retried is not None:
        run_ended(state, run, ended, at_ms)
    if isinstance(run.identity, ClientId):
        state.dedupe.clients.pop(run.identity.id, None)
        state.dedupe.clients[run.identity.id] = at_ms
    instructions: list[Instruction] = [Close(run, ended, at_ms)]
    if run.approvals:
        instructions += withdraw(state, run, sorted(run.approvals), at_ms)
    if run.refusals:
        instructions += _unheeded(state, run, ended)
    if run.start.parent is not None or run.children or run.joiners:
        instructions += map(Send, tell_family(state, offset, run, ended))
    if run.start.contended_key is not None:
        following = give_key_back(state, run)
        if following is not None:
            instructions.append(Begin(following))
    return Folded(instructions=instructions)


def new_state(
    *, topic: str, partition: int, partitions: int, client_retention_ms: int, retry_retention_ms: int = RETENTION_MS
) -> PartitionState:
    """A partition before its first record."""
    return PartitionState(
        partition=partition,
        partitions=partitions,
        topic=topic,
        client_retention_ms=client_retention_ms,
        retry_retention_ms=retry_retention_ms,
    )
