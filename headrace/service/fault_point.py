"""Fault points: named places of the shell at which a test may end the process, or stop it, or look.

Nothing happens at one unless a test armed a hook: `maybe` is then one look at a variable, some 30 ns, and stands in no loop over records. The chaos tests arm
a hook that kills the process; the simulation arms one that crashes the simulated instance. A hook may not raise. Nothing of an instance is kept here.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class FaultPoint(StrEnum):
    """Where. The values are stable: test reports use them."""

    # the way in
    SOURCE_POLLED = "source.polled"  # source records have arrived, nothing was done with them
    SOURCE_TOUCHED = "source.touched"  # how far the next records may be touched is committed, and they are not decoded
    SOURCE_TRIED = "source.tried"  # the try of a record that may be poison is noted, and it is not decoded
    # a record that was tried before was decoded for nothing, and that does not count any more
    SOURCE_LOOKED_AT = "source.looked_at"
    SOURCE_DECODED = "source.decoded"  # a chunk was decoded and matched, and what was made of it is queued
    SOURCE_ACKNOWLEDGED = "source.acknowledged"  # all of it is durable, and the position has not moved
    POSITION_COMMITTING = "position.committing"  # source positions are about to be committed
    POSITION_COMMITTED = "position.committed"  # they are, and nobody was told
    DEAD_LETTER_QUEUED = "dead_letter.queued"  # a dead letter is on its way
    DEAD_LETTER_SENT = "dead_letter.sent"  # it is durable, and nobody was told
    # the run log
    APPEND_BEGINNING = "append.beginning"  # a batch leaves for the run log
    APPEND_ACKNOWLEDGED = "append.acknowledged"  # it is durable, and nobody was told
    APPEND_FAILED = "append.failed"  # nobody knows whether it is there, and nobody was told
    READ_BACK = "log.read_back"  # records of the run log have arrived and are not folded
    FOLDED = "log.folded"  # they are, and all that they ask for has begun
    # ownership
    REPLAYED = "partition.replayed"  # the log was folded to its end, and nothing is announced
    ANNOUNCING = "partition.announcing"  # the announce is queued
    TAKEN = "partition.taken"  # the announce was read back, and no run is awake
    WOKEN = "partition.woken"  # every run was woken and the outbox sent again, and nothing came back yet
    BROKEN = "partition.broken"  # an own outcome was lost: about to announce anew
    RELEASED = "partition.released"  # the release is queued
    # checkpoints
    RECOVERED = "partition.recovered"  # the state as of the checkpoint is there, and nothing behind it is folded
    CHECKPOINT_BEGINNING = "checkpoint.beginning"  # a checkpoint is due, and nothing is captured
    CHUNK_PROPOSING = "checkpoint.chunk_proposing"  # a chunk is captured
    CHUNK_PROPOSED = "checkpoint.chunk_proposed"  # it is queued
    CHECKPOINT_COMPLETE = "checkpoint.complete"  # all chunks were read back, and nobody was told
    CHECKPOINT_COMMITTED = "checkpoint.committed"  # the hint names it, and nothing is trimmed
    LOG_TRIMMED = "checkpoint.trimmed"  # what lies before it is gone
    # runs
    RUN_IDLE = "run.idle"  # a run that only waits is about to be dropped to bytes
    RUN_WAKING = "run.waking"  # a run is about to begin, or to be rebuilt
    PROBE_QUEUED = "run.probe_queued"  # that a run is about to be woken on trial is queued
    PROBE_READ = "run.probe_read"  # it was read back, and the run does not know
    RUN_ENDING = "run.ending"  # its end is queued
    RUN_CLOSED = "run.closed"  # its end was read back, and its attempts still run
    RUN_PARKING = "run.parking"  # its parking is queued
    CANCEL_READ = "run.cancel_read"  # a cancel was read back, and the run does not know
    ATTEMPT_BEGINNING = "attempt.beginning"  # the handler is about to be called
    ATTEMPT_BEGUN = "attempt.begun"  # its task exists
    ATTEMPT_ENDED = "attempt.ended"  # the handler is over, and its outcome is not queued
    RETRY_DUE = "attempt.retry_due"  # a retry's wait is over
    UNDOING = "attempt.undoing"  # a compensation is about to be called
    RESULT_QUEUED = "attempt.result_queued"  # the outcome is queued
    RESULT_DELIVERING = "attempt.result_delivering"  # the result of a released attempt is queued as a command
    SLOT_DUE = "schedule.slot_due"  # a slot is due, and its start is not queued
    SLOT_QUEUED = "schedule.slot_queued"  # its start is queued
    SLOT_READ = "schedule.slot_read"  # its start was read back, and the schedule does not know
    TIMER_RANG = "timer.rang"  # a timer is due, and its outcome is not queued
    EMIT_QUEUED = "emit.queued"  # an emission is queued, or the start of a child run
    # the way out
    OUTPUT_SENDING = "output.sending"  # a batch leaves for a topic outside of the run log
    OUTPUT_SENT = "output.sent"  # it is durable, and nobody was told
    OUTPUT_REFUSED = "output.refused"  # the topic will never take it, and the log does not say so
    PROGRESS_QUEUED = "outbox.progress_queued"  # the log is about to hear what left the outbox
    FORWARDING = "forward.queued"  # a start is on its way to the partition of its key, or a child's start, end or cancel to another run
    FORWARDED = "forward.acknowledged"  # it is there, and its own partition does not know
    # leaving
    STOPPING = "service.stopping"  # asked to stop, nothing done
    ROUTER_STOPPED = "service.router_stopped"  # the last positions are committed
    OUTPUTS_HOME = "service.outputs_home"  # no output is out
    GRACE_OVER = "service.grace_over"  # what still runs is about to be cancelled
    FLUSHED = "service.flushed"  # everything is written, and the tasks still run


_hook: Callable[[FaultPoint], None] | None = None


def maybe(point: FaultPoint) -> None:
    """The shell is at this point."""
    if _hook is not None:
        _hook(point)


@contextmanager
def armed(hook: Callable[[FaultPoint], None]) -> Generator[None]:
    """Call the hook at every point, in this process, until the end of the block."""
    global _hook  # noqa: PLW0603 - a test's hand on the whole process
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before


def arm(hook: Callable[[FaultPoint], None]) -> None:
    """The same for the rest of the process's life."""
    global _hook  # noqa: PLW0603 - as above
    _hook = hook
