# pyright: reportMissingTypeStubs=false
"""`Reader`: what was fetched of one Kafka partition, raw, in a queue; unpacked when it is asked for, a large batch in a thread.

Batches of aborted transactions and control batches are left out. What cannot be read is `Unreadable` where it stood, with
its neighbours whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Self

import anyio
import anyio.to_thread

from headrace.topics.codec_kafka import (
    SMALL_BYTES_MAX,
    Corrupt,
    StoredBatch,
    TooLarge,
    batches_in,
    crc_holds,
    records_leniently,
    records_of,
    unpacked,
)
from headrace.topics.fetch_kafka import Fetched, Wanted
from headrace.topics.log import Batch, Isolation, LogCorrupt, LogRecord, NewRecord, TopicPartition, Unreadable
from headrace.topics.wake import Wake

PARTITION_BYTES_MAX = 256 * 1024  # of one partition in one poll
_RECORDS_MAX = 300  # of one Batch: a source with a backlog holds one
_QUEUE_BYTES = 256 * 1024  # raw bytes of one reader below which more is fetched
_ASK_BYTES_MAX = 128 * 1024 * 1024  # for a batch larger than what was asked for; brokers refuse more by default

TOO_LARGE = "HR5010"
UNREADABLE = "HR5011"

_LARGE: Literal["large"] = "large"


class _Own(NamedTuple):
    """A batch that this process appended."""

    last_offset: int
    records: list[LogRecord]
    size: int  # in bytes, about


class Reader:
    """An endless iterator over one partition."""

    def __init__(
        self,
        at: TopicPartition,
        position: int,
        isolation: Isolation,
        kick: Callable[[Reader], None],
        limit: int,
    ) -> None:
        """`kick`: called when there is room for more. `limit`: of bytes that a batch may unpack to."""
        self.at = at
        self.fetch_offset = position
        self.in_flight = False
        self.caught_up = False
        self.ask_bytes = 0  # more than the usual share, for a large batch
        self.refused_since: float | None = None
        self.queued_bytes = 0
        self.end_offset = position
        self._position = position
        self._isolation: Isolation = isolation
        self._kick = kick
        self._limit = limit
        self._queue: deque[StoredBatch | _Own] = deque()
        self._records: Iterator[LogRecord] | None = None  # the rest of a batch of many records
        self._open: StoredBatch | None = None
        self._open_data: bytes | bytearray = b""
        self._error: Exception | None = None
        self._wake = Wake()
        self._aborted: set[int] = set()  # producers whose transaction at this place was aborted

    def wanted(self, share: int) -> Wanted:
        """What the next poll asks for."""
        return Wanted(self.at.partition, self.fetch_offset, max(share, self.ask_bytes))

    @property
    def has_room(self) -> bool:
        return self.queued_bytes < _QUEUE_BYTES and self._error is None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            if records := await self._take():
                if not self._queue and self._records is None:
                    self._position = self.fetch_offset
                return Batch(self.at, records, max(self.end_offset, self._position), self._position)
            if not self._queue and self._records is None:
                if self._isolation == "committed" and self._position < self.fetch_offset:  # no record there is for us
                    self._position = self.fetch_offset
                    return Batch(self.at, (), max(self.end_offset, self._position), self._position)
                if self._error is not None:
                    raise self._error
                self._wake.clear()
                await self._wake.wait()

    def fail(self, error: Exception) -> None:
        """Nothing more will come. What is queued is handed out first."""
        self._error = error
        self._wake.set()

    def feed(self, found: Fetched) -> bool:
        """Queue what a poll brought. False if all of that was known."""
        self.end_offset = max(self.end_offset, found.end_offset)
        self.refused_since = None
        aborted = sorted(found.aborted, key=_first_offset, reverse=True)
        got = news = False
        for batch in batches_in(found.data):
            got = True
            if batch.last_offset < self.fetch_offset:
                continue
            news = True
            self.fetch_offset = batch.last_offset + 1
            while aborted and aborted[-1][1] <= batch.base_offset:
                self._aborted.add(aborted.pop()[0])
            if batch.is_control:
                if batch.is_abort:
                    self._aborted.discard(batch.producer_id)
            elif not (batch.is_transactional and batch.producer_id in self._aborted):
                self._queue.append(batch)
                self.queued_bytes += len(batch.data)
        readable = found.stable_offset if self._isolation == "committed" else found.end_offset
        self.caught_up = self.fetch_offset >= readable
        if got:
            self.ask_bytes = 0
        elif not self.caught_up:
            self.ask_bytes = min(_ASK_BYTES_MAX, 2 * max(self.ask_bytes, PARTITION_BYTES_MAX))
        if news:
            self._wake.set()
        return news

    def appended(self, base_offset: int, timestamp_ms: int, records: Sequence[NewRecord]) -> bool:
        """Queue what this process appended, if that is what comes next here. False: a poll brings it in its turn."""
        if base_offset != self.fetch_offset or not self.has_room:
            return False
        self.fetch_offset = base_offset + len(records)
        self.end_offset = max(self.end_offset, self.fetch_offset)
        size = sum(record.size for record in records)
        self._queue.append(
            _Own(
                self.fetch_offset - 1,
                [
                    LogRecord(offset, timestamp_ms, record.key, record.value, record.headers)
                    for offset, record in enumerate(records, base_offset)
                ],
                size,
            )
        )
        self.queued_bytes += size
        self._wake.set()
        return True

    async def _take(self) -> list[LogRecord | Unreadable]:
        """Records of one or several batches, up to `_RECORDS_MAX` or about `SMALL_BYTES_MAX`, if that is not one batch.

        None if the queue is empty or held nothing new.
        """
        taken: list[LogRecord | Unreadable] = []
        size = 0
        while len(taken) < _RECORDS_MAX and size < SMALL_BYTES_MAX:
            if self._records is not None and self._open is not None:
                batch = self._open
                size += len(self._open_data)
                failure = self._parse(batch, self._records, taken)
                if failure is not None:
                    taken.append(failure)
                continue
            if not self._queue:
                break
            batch = self._queue[0]  # stays there while we wait for a thread: a cancelled call loses nothing
            if isinstance(batch, _Own):
                self._queue.popleft()
                self.queued_bytes -= batch.size
                self._position = batch.last_offset + 1
                taken += batch.records
                size += batch.size
                continue
            unreadable = self._unpack(batch, SMALL_BYTES_MAX)
            if unreadable is _LARGE:
                if taken:
                    break
                unreadable = await anyio.to_thread.run_sync(self._unpack, batch, self._limit)
            self._queue.popleft()
            self.queued_bytes -= len(batch.data)
            if isinstance(unreadable, Unreadable):
                self._position = batch.last_offset + 1
                taken.append(unreadable)
        if self.has_room:
            self._kick(self)
        return taken

    def _parse(
        self, batch: StoredBatch, records: Iterator[LogRecord], taken: list[LogRecord | Unreadable]
    ) -> Unreadable | None:
        """Move records of the open batch to `taken`. What cannot be parsed, to the batch's end, is the result."""
        position = self._position
        try:
            for record in records:
                if record.offset >= position:
                    taken.append(record)
                    position = record.offset + 1
                    if len(taken) >= _RECORDS_MAX:
                        self._position = position
                        return None
        except UnicodeDecodeError:
            self._position = position
            self._records = records_leniently(self._open_data)
            return None
        except Exception as error:  # noqa: BLE001 - aiokafka's parser raises what comes (struct, assertion, ...)
            self._close_batch()
            self._position = batch.last_offset + 1
            return self._unreadable(batch, UNREADABLE, f"{type(error).__name__}: {error}", first=position)
        self._close_batch()
        self._position = max(position, batch.last_offset + 1)
        return None

    def _close_batch(self) -> None:
        self._records = None
        self._open = None
        self._open_data = b""

    def _unpack(self, batch: StoredBatch, limit: int) -> Unreadable | Literal["large"] | None:
        """Open the batch, or say why it cannot be. `_LARGE`: not within `limit`, but perhaps within the reader's own."""
        if batch.magic < 2:
            return self._unreadable(batch, UNREADABLE, "the record format is older than Kafka 0.11")
        if not crc_holds(batch):
            return self._unreadable(batch, UNREADABLE, "the checksum is wrong")
        try:
            data = unpacked(batch, min(limit, self._limit))
        except TooLarge:
            if limit < self._limit:
                return _LARGE
            return self._unreadable(
                batch, TOO_LARGE, f"a compressed batch of {len(batch.data)} bytes unpacks to more than {self._limit}"
            )
        except Corrupt as error:
            return self._unreadable(batch, UNREADABLE, f"the batch cannot be unpacked: {error}")
        self._open = batch
        self._open_data = data
        self._records = records_of(data)
        return None

    def _unreadable(self, batch: StoredBatch, code: str, reason: str, first: int | None = None) -> Unreadable:
        """Coordinates for a source topic. The run log has no such batch unless it was damaged: then the partition stops."""
        first = max(batch.base_offset, self._position) if first is None else first
        if self._isolation == "all":
            raise LogCorrupt(
                f"Offsets {first} to {batch.last_offset} of {self.at} cannot be read: {reason}.",
                why="The log was damaged, or something else wrote to it.",
                do="The partition stops here; nothing was skipped. Look at the broker's disk and at the topic's writers.",
            )
        return Unreadable(first, batch.last_offset, batch.timestamp_ms, code, reason)


def _first_offset(aborted: tuple[int, int]) -> int:
    return aborted[1]
