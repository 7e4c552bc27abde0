"""What is told of the run log: who owns its partitions, what is written there, and the history made of it. See `observer.py` for what holds of every struct."""

from __future__ import annotations

import msgspec

from headrace.observability.label import (
    GroupEvent,
    LogKind,
    LossReason,
    ProduceResult,
    SkipReason,
    StopReason,
    TakeReason,
)


class PartitionTaken(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The announce was read back and state is folded: user code may run. `duration_ms` is from the decision to now."""

    partition: int
    token: int
    reason: TakeReason
    records: int  # replayed
    duration_ms: float
    runs: int = 0  # open runs found
    probing: bool = False  # several owners have died lately: runs are woken on trial


class PartitionReleased(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Given away in good order."""

    partition: int
    token: int
    reason: LossReason
    attempts: int = 0  # still running here, within the grace


class PartitionLost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Taken away, or given up after a failure."""

    partition: int
    token: int
    reason: LossReason
    newer_token: int | None = None
    offset: int | None = None  # that was known of a log which now ends before it


class PartitionStopped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A partition of the run log or of a source stands still until somebody acts. An alarm."""

    topic: str
    partition: int
    reason: StopReason
    code: str
    message: str
    offset: int | None = None


class OutcomeSkipped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The accept rule skipped records. Told while reading live, not while replaying."""

    partition: int
    offset: int
    token: int
    reason: SkipReason
    records: int = 1


class Appended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One batch of the run log was acknowledged. `duration_ms` is from the call to the acknowledgement."""

    partition: int
    records: int
    duration_ms: float


class ReadBack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Own records came back. `duration_ms` is from the append call of the batch to its reading, once per batch."""

    partition: int
    records: int
    duration_ms: float


class Produced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One batch to any topic ended (also those of the run log)."""

    topic: str
    records: int
    duration_ms: float
    result: ProduceResult


class CheckpointWritten(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole checkpoint was read back as accepted."""

    partition: int
    as_of: int
    size_bytes: int
    duration_ms: float
    chunks: int = 1


class CheckpointFailed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A checkpoint was given up: a bug of ours, or a start that cannot be read. Work goes on, and the log grows until one succeeds."""

    partition: int
    code: str
    message: str


class TrimFailed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The log could not be trimmed up to `offset`: it grows until the next checkpoint tries again."""

    topic: str
    partition: int
    offset: int
    code: str
    message: str


class HistoryGap(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The history lacks records of a partition, from `offset` on, for good: the log was trimmed before they were read, or has lost them since."""

    partition: int
    offset: int
    records: int
    reason: str  # trimmed, truncated


class HistoryRefused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The history is not fed until somebody acts: `place` is a partition of the run log, or the database. Runs go on."""

    place: str
    code: str
    message: str
    do: str = ""


class TopicChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A topic of Headrace is not what it must be any more: somebody changed it while the service works. An alarm; the message names it."""

    code: str
    message: str


class LogFolded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An owner read and folded a batch of its partition, live: bytes of the records' values, by what they are."""

    partition: int
    sizes_bytes: dict[LogKind, int]


class Rebalanced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The group placed partitions anew."""

    group: str
    event: GroupEvent
    partitions: int
    duration_ms: float | None = None
