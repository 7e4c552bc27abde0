"""Approvals in the fold: they are requested, decided, they expire or are withdrawn. Changes the partition's state; called by the fold alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.engine.approval import ApprovalRequest, may_decide
from headrace.service.engine.folded import DONE, NO_EFFECT, Folded
from headrace.service.engine.instruction import Decided, Requested
from headrace.service.engine.settle import settled
from headrace.topics.approval import ApprovalEnding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.service.engine.instruction import Instruction
    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.state import PartitionState
    from headrace.topics.command import Approve
    from headrace.topics.outcome import ApprovalRequested, TimerFired


def request(state: PartitionState, at_ms: int, asked: ApprovalRequested) -> Folded:
    """A run waits for somebody. Asked again it goes on waiting since it was asked first."""
    run = state.runs.get(asked.run)
    if run is None or asked.step in run.settled:
        return NO_EFFECT
    before = state.approvals.get(_name(asked))
    new = ApprovalRequest(
        run=run.id,
        step=asked.step,
        workflow=run.start.workflow,
        namespace=run.start.namespace,
        key=run.start.key,
        title=asked.title,
        roles=asked.roles,
        requested_at_ms=at_ms if before is None else before.requested_at_ms,
        due_at_ms=asked.due_at_ms,
    )
    state.approvals[_name(asked)] = new
    run.approvals.add(asked.step)
    if asked.due_at_ms is not None:
        run.timers[asked.step] = asked.due_at_ms
    else:
        run.timers.pop(asked.step, None)
    run.rests = asked.rests_at == len(run.history)
    return Folded(instructions=[Requested(run, new)]) if before is None else DONE


def decide(state: PartitionState, at_ms: int, size: int, approve: Approve) -> Folded:
    """Somebody has decided: it counts if it is the first, in time, and theirs to decide."""
    asked = state.approvals.get(_name(approve))
    if asked is None or not may_decide(asked.roles, approve.roles):
        return NO_EFFECT
    if asked.due_at_ms is not None and at_ms >= asked.due_at_ms:
        return NO_EFFECT  # its timer has not fired yet, and will
    run = state.runs[asked.run]
    if approve.step in run.settled:
        return NO_EFFECT
    over = _over(state, run, approve.step, ApprovalEnding(approve.decision), at_ms, by=approve.by)
    return _both(over, settled(run, approve.step, approve, at_ms, size))


def expire(state: PartitionState, run: RunState, at_ms: int, fired: TimerFired) -> Folded:
    """The deadline is past."""
    over = _over(state, run, fired.step, ApprovalEnding.EXPIRED, at_ms)
    return _both(over, settled(run, fired.step, fired, at_ms, 0))


def withdraw(state: PartitionState, run: RunState, steps: Iterable[str], at_ms: int) -> list[Instruction]:
    """Nobody is asked any more at those of the steps where somebody was."""
    return [
        instruction
        for step in steps
        if step in run.approvals
        for instruction in _over(state, run, step, ApprovalEnding.WITHDRAWN, at_ms)
    ]


def _over(
    state: PartitionState, run: RunState, step: str, ending: ApprovalEnding, at_ms: int, by: str = ""
) -> list[Instruction]:
    run.approvals.discard(step)
    return [Decided(run, state.approvals.pop(f"{run.id}{step}"), ending, at_ms, by)]


def _both(over: list[Instruction], folded: Folded) -> Folded:
    return Folded(instructions=[*over, *folded.instructions])


def _name(of: ApprovalRequested | Approve) -> str:
    return f"{of.run}{of.step}"
