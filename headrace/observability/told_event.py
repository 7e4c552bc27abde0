"""What is told of source records on their way in, and of outputs on their way out. See `observer.py` for what holds of every struct."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.observability.label import DiscardReason, RedriveResult, Stage


class EventsConsumed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A batch of one source partition, at least one record.

    Delay is record time to consumption; both lists have one entry per record.
    """

    topic: str
    partition: int
    sizes_bytes: Sequence[int]
    delays_ms: Sequence[float]


class EventsMatched(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`records` source records were decoded and held against the triggers, in `duration_ms` altogether.

    `contexts_refused` of them had a trace context that is not sound: it was left out.
    """

    topic: str
    records: int
    duration_ms: float
    contexts_refused: int = 0


class EventDiscarded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A source record made no command (again). `records` > 1 for a range that ends at `offset`."""

    topic: str
    partition: int
    offset: int
    reason: DiscardReason
    detail: str = ""  # which clause said no; for the log only
    records: int = 1


class EventDeadLettered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record left for a dead-letter topic and was acknowledged there.

    The coordinates are the source's; stage `emit` has the output's topic.
    """

    topic: str
    partition: int
    offset: int
    stage: Stage
    code: str  # HR number
    message: str = ""
    workflow: str = ""
    records: int = 1  # more for a batch that may not be unpacked


class RecordRedriven(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A redriven record was taken up, and what came of it is acknowledged. `letter` is `topic/partition/offset` of the dead letter."""

    topic: str
    partition: int
    offset: int
    letter: str
    count: int  # of the redrive
    result: RedriveResult


class OutputSent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run's emitted event was acknowledged.

    `result_delay_ms`: source record time to now; None if the run has no source record.
    """

    run: str
    workflow: str
    topic: str
    partition: int
    offset: int
    result_delay_ms: float | None = None
    traceparent: str | None = None  # of the run's anchor, as the record carries it


class OutputResent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Outbox entries are sent again, after a failure or a take-over: their copies may exist already."""

    topic: str
    records: int = 1


class OutputRefused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A topic will never take this entry."""

    run: str
    workflow: str
    topic: str
    code: str
    message: str = ""
    traceparent: str | None = None  # of the run's anchor
