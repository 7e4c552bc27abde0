"""Retrying failed runs: what is kept of a run that failed, and what a new run is given of it. Part of the partition's state, changed by the fold alone.

A retry is a new run: the failed one has its one terminal record for ever. What had finished is copied, and is there at once when the new run's code asks for
it at the same place. What had not finished runs again with the idempotency key that it had: keys begin with the first run of the chain. What had finished and
is not copied (it was undone, or it is behind the task from which to go on) is done a second time on purpose: its key begins with the new run. What people have
decided is copied in the same way; an approval that expired is asked anew.

    failed ──retry──► open retry ──succeeded──► forgotten, the runs before it too
      ▲ │                 │
      │ └─dismissed,      └─ended otherwise: may be retried again, and so may the retry if it failed
      │   expired ──► forgotten
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from headrace.service.engine.approval import Decision
from headrace.service.engine.run_state import ChildBegan, Copied, Retried, RunState
from headrace.topics.approval import is_approval
from headrace.topics.command import Approve, ChildEnded, Start
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutputRefused,
    RunEnded,
    RunStatus,
    TimerFired,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.service.engine.state import PartitionState
    from headrace.topics.command import Parent

RETRIABLE = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.COMPENSATED})
"""How a run must have ended. One that was cancelled has ended as somebody wished."""

FAILED_BYTES_MAX = 16 << 20
"""Of failed runs kept in a partition. Past it the oldest are forgotten: they stay in the log and the history, and can be retried no more."""

RETENTION_MS = 30 * 86_400_000

_UNDO = "/undo/"


class FailedRun(msgspec.Struct, frozen=True, gc=False):
    """A run that may be retried. `kept` is what a retry needs of it, as JSON. `of` is the run that it was a retry of, `retry` its own newest one."""

    ended_at_ms: int
    kept: msgspec.Raw
    of: str = ""
    retry: str = ""


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A step that was over when the run ended, in log order. `record` is there if it can be copied."""

    step: str
    ended: Literal["succeeded", "undone", "failed"]
    record: Copied | None = None


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a retry needs. `keys` are of steps whose idempotency key does not begin with `first`."""

    start: Start
    first: str
    keys: dict[str, str]
    finished: tuple[Finished, ...]


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Kept).decode


def run_ended(state: PartitionState, run: RunState, ended: RunEnded, at_ms: int) -> None:
    """A run is over: keep it if it failed; if it is a retry that succeeded, forget the runs before it."""
    of = run.retried.of if run.retried is not None else ""
    if ended.status is RunStatus.SUCCEEDED:
        while of:
            failed = forget(state, of)
            of = failed.of if failed is not None else ""
    elif ended.status in RETRIABLE:
        kept = _encode(_keep(run))
        state.failed[run.id] = FailedRun(at_ms, msgspec.Raw(kept), of=of)
        state.failed_bytes += len(kept)
        _limit(state, at_ms)


def forget(state: PartitionState, run: str) -> FailedRun | None:
    """It cannot be retried any more. None: it could not anyway."""
    failed = state.failed.pop(run, None)
    if failed is not None:
        state.failed_bytes -= len(bytes(failed.kept))
    return failed


def retriable(state: PartitionState, run: str, at_ms: int) -> FailedRun | None:
    """The run, if it may be retried at this time of the log's clock: it is kept, and no retry of it is open."""
    failed = state.failed.get(run)
    if failed is None or at_ms - failed.ended_at_ms > state.retry_retention_ms or failed.retry in state.runs:
        return None
    return failed


def _limit(state: PartitionState, at_ms: int) -> None:
    while state.failed:
        oldest, failed = next(iter(state.failed.items()))
        if state.failed_bytes <= FAILED_BYTES_MAX and at_ms - failed.ended_at_ms <= state.retry_retention_ms:
            return
        forget(state, oldest)


def kept_of(failed: FailedRun) -> Kept:
    """What a retry needs."""
    return _decode(failed.kept)


def copied(kept: Kept, *, of: str, retry: str, from_step: str) -> Retried | None:
    """What the new run is given. None: `from_step` is no step that was over."""
    copies: list[Copied] = []
    keys = dict(kept.keys)
    behind = False
    for each in kept.finished:
        behind = behind or each.step == from_step
        if each.record is not None and not behind:
            copies.append(each.record)
        elif each.ended != "failed":
            keys[each.step] = retry
    if from_step and not behind:
        return None
    return Retried(of=of, first=kept.first, copied=tuple(copies), keys=keys)


def _keep(run: RunState) -> Kept:
    retried = run.retried
    undone = {step.rpartition(_UNDO)[0] for step in _undos(run)}
    refused = {record.entry for record, _ in run.history if isinstance(record, OutputRefused)}
    before = retried.copied if retried is not None else ()
    finished: list[Finished] = []
    for record, at_ms in (*((record, 0) for record in before), *run.history):
        match record:
            case AttemptSucceeded(step=step) if _UNDO in step:
                pass
            case AttemptSucceeded(step=step) if step in undone:
                finished.append(Finished(step, "undone"))
            case Emitted(step=step) if f"{record.run}{step}" in refused:
                finished.append(Finished(step, "failed"))
            case AttemptSucceeded(step=step) | Emitted(step=step):
                finished.append(Finished(step, "succeeded", record))
            case ChildEnded(step=step, status=RunStatus.SUCCEEDED) | ChildBegan(step=step, awaited=False):
                finished.append(Finished(step, "succeeded", record))
            case ChildEnded(step=step):
                finished.append(Finished(step, "failed"))
            case AttemptFailed(step=step) if _UNDO not in step:
                finished.append(Finished(step, "failed"))
            case Decision(step=step):
                finished.append(Finished(step, "succeeded", record))
            case Approve(step=step, decision=decision, by=by, note=note, roles=roles):
                kept = Decision(record.run, step, decision, by, at_ms, note, roles)
                finished.append(Finished(step, "succeeded", kept))
            case TimerFired(step=step) if is_approval(step):
                finished.append(Finished(step, "failed"))  # asked anew
            case _:
                pass
    return Kept(
        start=msgspec.structs.replace(run.start, trigger="manual", record=None, parent=_left_alone(run.start.parent)),
        first=run.id if retried is None else retried.first,
        keys={} if retried is None else retried.keys,
        finished=tuple(finished),
    )


def _left_alone(parent: Parent | None) -> Parent | None:
    """Of a child that is done again: its parent has got the first one's end."""
    return None if parent is None else msgspec.structs.replace(parent, awaited=False, depth=0)


def _undos(run: RunState) -> Iterator[str]:
    """Undos that succeeded. One that failed leaves its task as it was: finished."""
    for record, _ in run.history:
        if isinstance(record, AttemptSucceeded) and _UNDO in record.step:
            yield record.step
