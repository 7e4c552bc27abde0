"""A new run: begun by a start or by a retry, and the key that it may have to wait for. Changes the partition's state; called by the fold alone.

Policies other than `allow` are about the key. A key belongs to one partition, and one run at a time holds it there:

    start ──► the key is another partition's: sent on to it
      ├─────► free, or no policy about it: OPEN
      └─────► held: QUEUED behind the holder, joined to it, or refused
    the holder ends ──► the oldest that is queued is OPEN
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.child import refuse_child
from headrace.service.engine.folded import NO_EFFECT, SKIPPED, Folded, to_outbox
from headrace.service.engine.gate import Skip
from headrace.service.engine.instruction import Begin, Joined, Queued, Send
from headrace.service.engine.retry import copied, kept_of, retriable
from headrace.service.engine.run_state import Phase, RunState
from headrace.service.engine.state import Forward, KeySlot, Refusal
from headrace.topics.command import OnConflict
from headrace.topics.identity import Coordinates, run_id
from headrace.topics.partition_hash import partition_of

if TYPE_CHECKING:
    from headrace.service.engine.state import PartitionState
    from headrace.topics.command import Retry, Start
    from headrace.topics.identity import Identity


def begin_start(state: PartitionState, offset: int, at_ms: int, size: int, identity: Identity, start: Start) -> Folded:
    """A start was accepted at `offset`; `size` is its bytes."""
    key = start.contended_key
    if key is not None:
        home = partition_of(key.encode(), state.partitions)
        if home != state.partition:
            return _forward(state, offset, home, start)
    id_ = run_id(state.partition, identity)
    if id_ in state.runs:
        return SKIPPED[Skip.DUPLICATE]
    run = _new(id_, offset, at_ms, size, identity, start)
    held = None if key is None else _claim(state, run)
    if held is not None:
        return _conflict(state, offset, run, held)
    state.runs[id_] = run
    return Folded(instructions=[Begin(run)])


def begin_retry(state: PartitionState, offset: int, at_ms: int, size: int, identity: Identity, retry: Retry) -> Folded:
    """The same with what the failed run has finished. Without effect where it may not be retried, or its key is held and not queued for."""
    failed = retriable(state, retry.run, at_ms)
    id_ = run_id(state.partition, identity)
    if failed is None or id_ in state.runs:
        return NO_EFFECT
    kept = kept_of(failed)
    retried = copied(kept, of=retry.run, retry=id_, from_step=retry.from_step)
    if retried is None:
        return NO_EFFECT
    start, copied_bytes = kept.start, len(bytes(failed.kept))
    run = _new(id_, offset, at_ms, size + copied_bytes, identity, start)
    run.history_bytes, run.retried = copied_bytes, retried
    folded = Folded(instructions=[Begin(run)])
    held = None if start.contended_key is None else _claim(state, run)
    if held is not None:
        if start.policy is not OnConflict.QUEUE:
            return NO_EFFECT
        folded = _conflict(state, offset, run, held)
    state.runs[id_] = run
    state.failed[retry.run] = msgspec.structs.replace(failed, retry=id_)
    return folded


def _new(id_: str, offset: int, at_ms: int, size: int, identity: Identity, start: Start) -> RunState:
    return RunState(
        id=id_,
        offset=offset,
        size=size,
        identity=identity,
        start=start,
        started_at_ms=at_ms,
        began_at_ms=at_ms,
        phase=Phase.OPEN,
        clock_ms=at_ms,
    )


def _claim(state: PartitionState, run: RunState) -> KeySlot | None:
    """Take the key for the run. None: it was free; else the slot of the run that holds it, as it was."""
    slot = state.slots.get(run.slot)
    if slot is None:
        state.slots[run.slot] = KeySlot(open=run.id, queued=deque())
    return slot


def _forward(state: PartitionState, offset: int, home: int, start: Start) -> Folded:
    identity = Coordinates(epoch=0, origin=state.topic, partition=state.partition, offset=offset, n="0", floor=0)
    return to_outbox(state, Forward(id=f"forward/{offset}", partition=home, identity=identity, start=start))


def _conflict(state: PartitionState, offset: int, run: RunState, slot: KeySlot) -> Folded:
    policy, parent = run.start.policy, run.start.parent
    if parent is not None and parent.awaited and (policy is OnConflict.REJECT or slot.open == parent.run):
        return Folded(instructions=[Send(refuse_child(state, offset, run.start, parent, slot.open))])
    match policy:
        case OnConflict.JOIN:
            held = state.runs[slot.open]
            held.joined += 1
            if parent is not None and parent.awaited:
                held.joiners = (*held.joiners, parent)
            return Folded(instructions=[Joined(held, run.start)])
        case OnConflict.REJECT:
            return to_outbox(state, Refusal(id=f"refusal/{offset}", start=run.start, open_run=slot.open))
        case _:
            run.phase = Phase.QUEUED
            state.runs[run.id] = run
            slot.queued.append(run.id)
            return Folded(instructions=[Queued(run)])


def leave_queue(state: PartitionState, run: RunState) -> None:
    """A queued run waits no more. It is open, though it does not hold the key."""
    state.slots[run.slot].queued.remove(run.id)
    run.phase = Phase.OPEN


def give_key_back(state: PartitionState, run: RunState) -> RunState | None:
    """The run has ended. The one that holds its key now and begins; None: nobody waits for it, or another one holds it."""
    slot = state.slots.get(run.slot)
    if slot is None or slot.open != run.id:
        return None
    if not slot.queued:
        del state.slots[run.slot]
        return None
    following = state.runs[slot.queued.popleft()]
    slot.open = following.id
    following.phase = Phase.OPEN
    following.began_at_ms = following.clock_ms = max(state.clock_ms, following.clock_ms)
    return following
