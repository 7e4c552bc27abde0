"""Reading the embedded log: from the file in large steps, and at the tail straight from the writer's committed turns.

`Reader` lives on the event loop. `ForeignWatch` is a thread that sees what other processes append.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import anyio
import anyio.to_thread

from headrace.topics.log import Batch, LogRecord, LogUnavailable, OffsetOutOfRange, Offsets, TopicPartition
from headrace.topics.log_embedded_file import broken_or_unavailable, decode_records, open_file, row_of

T = TypeVar("T")

BUFFER_BYTES_MAX = 1024 * 1024  # of a batch, and of what waits at the tail for one reader: past it, it reads the file
RECORDS_MAX = 4096  # of a batch
_RECORD_BYTES = 160  # what a record costs in memory besides its bytes
_POLL_S = 0.005  # how late another process's append is seen at most; a look takes 5 microseconds
_RETRY_S = 0.5  # after a disk error
_THREADS = 4  # that read the file at one time


class Chunk(NamedTuple):
    """What one look at the file gave. `offsets` are of the same moment."""

    records: list[LogRecord]
    offsets: Offsets


class FileReads:
    """Connections for reading in threads, each used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._limiter = anyio.CapacityLimiter(_THREADS)

    async def run(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Call `look` in a thread, in one read transaction. Raises `LogUnavailable`, `LogCorrupt`."""
        return await anyio.to_thread.run_sync(self._look, look, limiter=self._limiter)

    def _look(self, look: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.pop() if self._idle else open_file(self._path, create=False)
        try:
            connection.execute("BEGIN")
            found = look(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            raise broken_or_unavailable(self._path, error) from error
        except BaseException:
            connection.execute("ROLLBACK")
            self._idle.append(connection)
            raise
        self._idle.append(connection)
        return found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def chunk_from(connection: sqlite3.Connection, partition_id: int, position: int) -> Chunk:
    """Records from `position` on, up to `BUFFER_BYTES_MAX` and `RECORDS_MAX` (one row more, at most)."""
    start, end = connection.execute(
        "SELECT start_offset, end_offset FROM head WHERE id = ?", (partition_id,)
    ).fetchone()
    records: list[LogRecord] = []
    if start <= position < end:
        size = 0
        for (row,) in connection.execute(
            "SELECT records FROM batch WHERE id >= ? AND id < ? ORDER BY id",
            (row_of(partition_id, position), row_of(partition_id + 1, 0)),
        ):
            found = decode_records(row)
            if not records and found[0].offset < position:
                found = [record for record in found if record.offset >= position]
            records += found
            size += len(row) + _RECORD_BYTES * len(found)
            if size >= BUFFER_BYTES_MAX or len(records) >= RECORDS_MAX:
                break
    return Chunk(records, Offsets(start, end))


class Reader:
    """An endless iterator over one partition.

    At the tail it takes what the writer committed, in memory. Elsewhere (`_expected` is None), or when that is not
    contiguous or too much,
    it looks at the file.
    """

    def __init__(self, at: TopicPartition, partition_id: int, position: int, reads: FileReads) -> None:
        self.at = at
        self.partition_id = partition_id
        self._position = position  # the next offset to hand out
        self._reads = reads
        self._end = position
        self._expected: int | None = None  # the offset that the tail goes on with
        self._tail: deque[list[LogRecord]] = deque()
        self.queued_bytes = 0
        self._behind = True  # the file may have more than the tail
        self._wake = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            if self._tail:
                return self._from_tail()
            if not self._behind:
                self._wake.clear()
                await self._wake.wait()
            elif batch := await self._from_file():
                return batch

    def appended(self, records: list[LogRecord], size: int) -> None:
        """This process appended these records, and they are durable."""
        base, end = records[0].offset, records[-1].offset + 1
        self._end = max(self._end, end)
        size += _RECORD_BYTES * len(records)
        if self._expected == base and self.queued_bytes + size <= BUFFER_BYTES_MAX:
            self._tail.append(records)
            self.queued_bytes += size
            self._expected = end
            self._wake.set()
        elif self._expected is None or end > self._expected:
            self._fall_behind()

    def appended_elsewhere(self, end: int) -> None:
        """Another process appended: the partition's end is at least this."""
        if end > self._end:
            self._end = end
            self._fall_behind()

    def _fall_behind(self) -> None:
        self._behind = True
        self._expected = None
        self._wake.set()

    def _from_tail(self) -> Batch:
        records = self._tail.popleft()
        if self._tail:
            records = list(records)
            while self._tail and len(records) < RECORDS_MAX:
                records += self._tail.popleft()
        if not self._tail:
            self.queued_bytes = 0
        self._position = records[-1].offset + 1
        return Batch(self.at, records, self._end)

    async def _from_file(self) -> Batch | None:
        self._behind = False  # what is appended from here on sets it again
        try:
            chunk = await self._reads.run(lambda connection: chunk_from(connection, self.partition_id, self._position))
        except LogUnavailable:
            self._behind = True
            await anyio.sleep(_RETRY_S)
            return None
        except BaseException:
            self._behind = True
            raise
        offsets = chunk.offsets
        if not offsets.start <= self._position <= offsets.end:
            self._behind = True
            raise OffsetOutOfRange(self.at, self._position, offsets)
        self._end = max(self._end, offsets.end)
        if chunk.records:
            self._position = chunk.records[-1].offset + 1
        if self._position < offsets.end:
            self._behind = True
        elif not self._behind:
            self._expected = self._position
        return Batch(self.at, chunk.records, self._end) if chunk.records else None


class ForeignWatch:
    """A thread that looks for commits of other processes while there are readers."""

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        known_ends: Callable[[], dict[int, int]],
        appended: Callable[[dict[int, int]], None],
    ) -> None:
        """`appended` is called on the event loop with partition ids and ends that differ from `known_ends`."""
        self._path = path
        self._loop = loop
        self._known_ends = known_ends
        self._appended = appended
        self._readers = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="headrace-log-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def watch(self, *, wanted: bool) -> None:
        """Look, or rest."""
        if wanted:
            self._readers.set()
        else:
            self._readers.clear()

    def stop(self) -> None:
        self._stopping = True
        self._readers.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        version = -1
        pause = threading.Event()
        while not self._stopping:
            self._readers.wait()
            pause.wait(_POLL_S)
            try:
                connection = connection or open_file(self._path, create=False)
                seen: int = connection.execute("PRAGMA data_version").fetchone()[0]
                if seen == version:
                    continue
                known = self._known_ends()
                rows = connection.execute("SELECT id, end_offset FROM head").fetchall()
                version = seen
                if ends := {row[0]: row[1] for row in rows if known.get(row[0]) != row[1]}:
                    self._loop.call_soon_threadsafe(self._appended, ends)
            except (sqlite3.Error, LogUnavailable):  # the readers meet it themselves and say so
                pause.wait(_RETRY_S)
            except RuntimeError:  # the event loop is closed
                break
        if connection is not None:
            connection.close()
