"""Child runs in the fold: what a parent's records put on the way to its children, and what a child's end puts on the way to its parent.

    parent's log   child.started ──outbox──► start            child's log
                   step settled  ◄──outbox── run.ended
                   step given up, or parent ended ──outbox──► cancel

A child runs in the partition of its key, or of the step that began it. Its id derives from where `child.started` lies, so the parent knows it before anybody
else does, and a start that is sent again is the same one. All goes this way, also where both runs are of one partition. Called by the fold alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.service.engine.folded import NO_EFFECT, Folded
from headrace.service.engine.instruction import Send
from headrace.service.engine.run_state import ChildBegan
from headrace.service.engine.settle import settled, woken
from headrace.service.engine.state import Message
from headrace.topics.command import Cancel, ChildEnded, Parent, Start
from headrace.topics.errors import Cause
from headrace.topics.identity import Coordinates, partition_in, run_id
from headrace.topics.outcome import RunStatus
from headrace.topics.partition_hash import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.state import PartitionState
    from headrace.topics.outcome import ChildStarted, RunEnded

KEY_HELD: Final = "HR4016"

_CAUSES: Final = {
    RunStatus.FAILED: Cause.RAISED,
    RunStatus.COMPENSATED: Cause.RAISED,
    RunStatus.TIMED_OUT: Cause.TIMED_OUT,
    RunStatus.CANCELLED: Cause.CANCELLED,
}


def child_started(state: PartitionState, offset: int, at_ms: int, size: int, started: ChildStarted) -> Folded:
    """A run begins a child. A detached one's id is the step's result at once."""
    run = state.runs.get(started.run)
    if run is None or started.step in run.settled or started.step in run.children:
        return NO_EFFECT
    began, message = _begin(state, offset, run, started)
    size -= len(bytes(started.input))  # which no history keeps
    folded = woken(run, began, at_ms, size) if started.awaited else settled(run, started.step, began, at_ms, size)
    return Folded(instructions=[Send(message), *folded.instructions])


def child_ended(state: PartitionState, at_ms: int, size: int, ended: ChildEnded) -> Folded:
    """A child says how it ended. Without effect if its parent has ended, does not wait for it any more, or knows."""
    run = state.runs.get(ended.run)
    if run is None or run.children.pop(ended.step, None) is None:
        return NO_EFFECT
    _count(state, run)
    return settled(run, ended.step, ended, at_ms, size)


def _begin(state: PartitionState, offset: int, run: RunState, started: ChildStarted) -> tuple[ChildBegan, Message]:
    """The record at `offset` begins a child: what the run's history keeps of it, and the start on its way."""
    place = f"{run.id}{started.step}" if started.key is None else started.key
    partition = partition_of(place.encode(), state.partitions)
    identity = _identity(state, offset, 0)
    child = run_id(partition, identity)
    start = Start(
        namespace=started.namespace,
        workflow=started.workflow,
        version=started.version,
        input=started.input,
        trigger="child",
        key=started.key,
        policy=started.policy,
        timeout_ms=started.timeout_ms,
        traceparent=started.traceparent,
        tracestate=started.tracestate,
        parent=Parent(
            run=run.id,
            step=started.step,
            awaited=started.awaited,
            depth=depth_of(run.start) + 1 if started.awaited else 0,
        ),
    )
    if started.awaited:
        run.children[started.step] = child
        _count(state, run)
    began = ChildBegan(run=run.id, step=started.step, workflow=started.workflow, child=child, awaited=started.awaited)
    return began, _put(state, Message(_start_entry(run.id, started.step), partition, identity, start))


def depth_of(start: Start) -> int:
    """How many runs wait for this one, one through the other."""
    return 0 if start.parent is None else start.parent.depth


def give_up_children(state: PartitionState, offset: int, run: RunState, steps: Iterable[str]) -> list[Message]:
    """Nobody waits for these steps any more: what cancels the children that they await."""
    return [_cancel(state, offset, index, run, step) for index, step in enumerate(_awaiting(run, steps))]


def tell_family(state: PartitionState, offset: int, run: RunState, ended: RunEnded) -> list[Message]:
    """The run has ended: its result for who awaits it, and a cancel for the children that it awaits."""
    parent = run.start.parent
    waiting = (*(() if parent is None or not parent.awaited else (parent,)), *run.joiners)
    messages = [_result(state, offset, index, each, _ended(each, run, ended)) for index, each in enumerate(waiting)]
    awaiting = sorted(run.children)  # bytes of a run do not keep an order
    return messages + [_cancel(state, offset, index, run, step) for index, step in enumerate(awaiting, len(messages))]


def refuse_child(state: PartitionState, offset: int, start: Start, parent: Parent, open_run: str) -> Message:
    """The start of an awaited child found its key taken, and its policy is not to wait; or it would wait for its own parent."""
    by = "its own parent" if open_run == parent.run else f"run {open_run}"
    ended = ChildEnded(
        run=parent.run,
        step=parent.step,
        child=open_run,
        workflow=start.workflow,
        status=RunStatus.FAILED,
        cause=Cause.KEY_HELD,
        error="KeyHeld",
        message=f"{KEY_HELD}: key {start.key!r} of {start.workflow} is held by {by}, and its policy is {start.policy}",
    )
    return _result(state, offset, 0, parent, ended)


def _awaiting(run: RunState, steps: Iterable[str]) -> list[str]:
    return [step for step in dict.fromkeys(steps) if step in run.children]


def _cancel(state: PartitionState, offset: int, index: int, run: RunState, step: str) -> Message:
    child = run.children.pop(step)
    _count(state, run)
    partition = _home(state, child)
    cancel = Cancel(run=child, reason=f"given up by its parent {run.id}")
    entry = f"child.cancel/{run.id}{step}"
    return _put(
        state, Message(entry, partition, _identity(state, offset, index), cancel, after=_start_entry(run.id, step))
    )


def _result(state: PartitionState, offset: int, index: int, parent: Parent, ended: ChildEnded) -> Message:
    partition = _home(state, parent.run)
    entry = f"child.ended/{parent.run}{parent.step}"
    return _put(state, Message(entry, partition, _identity(state, offset, index), ended))


def _ended(parent: Parent, run: RunState, ended: RunEnded) -> ChildEnded:
    return ChildEnded(
        run=parent.run,
        step=parent.step,
        child=run.id,
        workflow=run.start.workflow,
        status=ended.status,
        result=ended.result,
        cause=_CAUSES.get(ended.status),
        error=ended.error,
        message=ended.message,
    )


def _put(state: PartitionState, message: Message) -> Message:
    state.outbox[message.id] = message
    return message


def _count(state: PartitionState, run: RunState) -> None:
    """The children that it awaits have changed."""
    if run.children:
        state.parents[run.id] = len(run.children)
    else:
        del state.parents[run.id]


def _home(state: PartitionState, run: str) -> int:
    """The partition of a run. What is no run's id (whoever may append may write anything as a parent) goes anywhere, and has no effect there."""
    return (partition_in(run) or 0) % state.partitions


def _identity(state: PartitionState, offset: int, index: int) -> Coordinates:
    return Coordinates(epoch=0, origin=state.topic, partition=state.partition, offset=offset, n=str(index), floor=0)


def _start_entry(run: str, step: str) -> str:
    return f"{run}{step}"
