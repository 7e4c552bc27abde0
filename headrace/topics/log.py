"""The `Log` protocol: what the rest of Headrace needs of a broker, and no more.

Two implementations pass one contract suite (`tests/contract`): `log_kafka.py` and `log_embedded.py`. Owner, router,
outbox and commands are written
against this file only. Nothing here knows what a record means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, NewType, Protocol, Self

import msgspec

from headrace.topics.errors import Fatal, Rejected, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from headrace.topics.membership import Membership
    from headrace.topics.spec import TopicSpec

Partition = NewType("Partition", int)

Isolation = Literal["all", "committed"]
"""What a reader sees of Kafka transactions: every record, or only those of committed ones. The embedded log has none.
"""

MAKE_TOPIC = (
    "Is the name right? `headrace topic create APP` makes an app's topics, and so does a start with --create-topics."
)
"""What to do about a topic that is not there."""


class TopicPartition(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to be appended. `value=None` is a tombstone."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Uncompressed bytes of key, value and headers, without the broker's framing."""
        if self.key is None and not self.headers:  # of the run log: asked for several times a record
            return len(self.value or b"")
        size = len(self.value or b"") + len(self.key or b"")
        for name, value in self.headers:
            size += len(value) + (len(name) if name.isascii() else len(name.encode(errors="surrogatepass")))
        return size


class LogRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record as read. Offsets rise but may have gaps.

    `timestamp_ms` is the append time (source topics: the topic's setting). The field order is the embedded file's
    format: it never changes.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """Records that cannot be had: a compressed batch over `limits.decompressed_batch`, or a corrupt one of a source
    topic.

    Coordinates stand for the bytes; both ends are included. `code` is an HR number, `reason` is for people.
    """

    offset: int
    last_offset: int
    timestamp_ms: int
    code: str
    reason: str


def last_offset(record: LogRecord | Unreadable) -> int:
    """Of what could not be read, the last; of a record, its own."""
    return record.last_offset if isinstance(record, Unreadable) else record.offset


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Some records of one partition in offset order. `end_offset` is one past the newest record known to exist, for lag.

    `next_offset` is where reading goes on: past offsets that hold no record for us, such as the marker at the end of a transaction; 0: right behind the last
    record. Where what was committed is read, there may be no record at all: the batch says that an aborted transaction has been passed.
    """

    at: TopicPartition
    records: Sequence[LogRecord | Unreadable]
    end_offset: int
    next_offset: int = 0

    @property
    def goes_on_at(self) -> int:
        """One past the last offset that this batch has dealt with."""
        if self.next_offset:
            return self.next_offset
        return last_offset(self.records[-1]) + 1


class Appended(msgspec.Struct, frozen=True, gc=False):
    """A batch is durable. Its records have the offsets `base_offset`, `base_offset` + 1, ..."""

    base_offset: int
    timestamp_ms: int


class Offsets(msgspec.Struct, frozen=True):
    """`start` is the first offset that can be read, `end` one past the last. Equal: nothing there."""

    start: int
    end: int


class Position(msgspec.Struct, frozen=True):
    """A group's committed position: the next offset to read, and up to 4 096 bytes of metadata (hints only)."""

    offset: int
    metadata: str = ""


class AppendFailed(Transient):
    """The append may or may not have happened, whole or a first part of it.

    The writer behind it is new now: an owner announces anew, a router goes back to its committed position.
    """

    code = "HR5001"


class LogUnavailable(Transient):
    """The broker does not answer. Nothing was queued; back off and try again."""

    code = "HR5002"


class AppendRefused(Rejected):
    """The broker (or the size check before it) will never take this batch: too large, not allowed, invalid. Other
    partitions go on.
    """

    code = "HR5003"


class AppendForbidden(AppendRefused):
    """The broker does not allow us to write there."""


class TopicForbidden(Rejected):
    """The broker does not allow us to read the topic."""

    code = "HR5013"


class TopicMissing(Rejected):
    """The topic (or the partition) does not exist. A missing output topic keeps its outbox entries; a missing source
    topic refuses the start.
    """

    code = "HR1201"


class TopicRefused(Rejected):
    """A topic cannot be made like this: illegal name, no partitions, more replicas than brokers, not allowed."""

    code = "HR5006"


class LogOwned(Fatal):
    """The embedded file has an owner already; the message has its pid. The command line ends with exit code 4."""

    code = "HR5005"

    def __init__(self, message: str, *, pid: int | None, do: str = "") -> None:
        super().__init__(message, why="Two owners of one log would run every task twice.", do=do)
        self.pid = pid


class LogCorrupt(Fatal):
    """What is stored cannot be trusted: a checksum is wrong, the file is damaged or of an unknown format. The partition
    stops.
    """

    code = "HR5007"


class OffsetOutOfRange(Fatal):
    """The position lies before the log's start or beyond its end: truncation, trimming or a topic made anew. Never
    silently reset.
    """

    code = "HR5004"

    def __init__(self, at: TopicPartition, offset: int, offsets: Offsets) -> None:
        super().__init__(
            f"Offset {offset} of {at} is not between {offsets.start} and {offsets.end}.",
            why="The topic was trimmed, truncated or made anew.",
            do="Nothing was skipped. Look at the topic's retention and history before starting again.",
        )
        self.at = at
        self.offset = offset
        self.offsets = offsets


class Log(Protocol):
    """A broker. `async with` starts it (connects, opens the file) and stops it (flushes, closes)."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def reachable(self) -> bool:
        """False while the broker does not answer: for health and back-off, never for a decision about data."""
        ...

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        """Append records, at least one, as neighbours, and return when all are durable (acks=all; full sync).

        Idempotent: for the run log and commands. At most one call per partition may be outstanding (a second one is a
        `RuntimeError`); one that was cancelled may still happen, and the next one on its partition comes behind it.

        Up to the topic's `max_message_bytes` it is all or nothing. On Kafka more than that goes as successive batches:
        others' records may come between, and `AppendFailed` may leave a first part.

        Raises `AppendRefused` and `TopicMissing` (nothing was appended), `LogUnavailable` (nothing was queued),
        `AppendFailed` (uncertain).
        """
        ...

    async def publish(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        """The same for users' topics, dead letters and audit: no idempotence, a refusal there cannot disturb `append`.

        Any number of calls may be outstanding; on one partition they happen in the order of the calls. May leave
        duplicates after an error.
        """
        ...

    def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Read from `start` on, for ever, waking when records arrive.

        The iterator raises `OffsetOutOfRange`, `TopicMissing`, `TopicForbidden` or `LogCorrupt`; outages it waits out. At most one reader
        per (partition, isolation)
        at a time for one `Log` object (a second one is a `RuntimeError`). `start` may be the end offset. What is
        buffered ahead is bounded in bytes.
        """
        ...

    async def offsets(self, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offsets]:
        """First and next offsets now. Raises `TopicMissing`, `LogUnavailable`."""
        ...

    async def trim(self, at: TopicPartition, before: int) -> None:
        """Delete all records with an offset below `before` (DeleteRecords). Raises `OffsetOutOfRange` beyond the end,
        `TopicMissing`, `LogUnavailable`.

        Below the start: nothing to do.
        """
        ...

    async def committed(self, group: str, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Position]:
        """Committed positions of a group without members; partitions without one are left out."""
        ...

    async def commit(self, group: str, positions: Mapping[TopicPartition, Position]) -> None:
        """Commit positions of a group without members. The last write wins; positions are hints. Raises `TopicMissing`,
        `LogUnavailable`.
        """
        ...

    def join(
        self,
        group: str,
        *,
        runs: str,
        partitions: int,
        sources: Sequence[str],
        definitions: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Membership]:
        """Be a member of `group`, whose members share the `partitions` of the topic `runs` and all partitions of `sources`.

        `definitions` is the newest version that this member has of each workflow: members with newer ones are preferred. None: nothing is said of that.
        Entering waits for nobody; `Membership.placements` tells what comes. Leaving it leaves the group. A source topic that is not there yet is placed
        once it is, and so are partitions that are added.
        """
        ...

    async def expel(self, group: str) -> Sequence[str]:
        """Say of every member whose process ran on this machine and is gone that it is dead; their names. Raises `LogUnavailable`.

        The others are then placed anew at once, not after the session timeout. For a supervisor whose worker died.
        """
        ...

    async def partitions(self, topic: str) -> int:
        """Number of partitions, or `TopicMissing`. Never lets the broker make the topic."""
        ...

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        """What is really there, for the start check; missing topics are left out."""
        ...

    async def topics(self) -> Sequence[str]:
        """Names of all topics that are not the broker's own, sorted."""
        ...

    async def create(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Make the topics that are not there yet; the names that were made. Existing ones are left as they are."""
        ...

    async def nodes(self) -> int:
        """How many brokers there are (1 for the embedded log): decides the replication of new topics."""
        ...


def partition_missing(at: TopicPartition, partitions: int) -> TopicMissing:
    """The topic is there, with fewer partitions."""
    return TopicMissing(
        f"{at} does not exist: {at.topic} has {partitions} partitions.",
        do="Give the topic as many partitions as it had, or name one that is there.",
    )


async def every_partition(log: Log, topic: str) -> list[TopicPartition]:
    """All partitions of a topic, by number. Raises `TopicMissing`, or what else `Log.partitions` raises."""
    return [TopicPartition(topic, number) for number in range(await log.partitions(topic))]
