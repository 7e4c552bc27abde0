"""The embedded log's writer: one thread, one transaction per turn for everything that waits (group commit).

A turn is few SQL statements on purpose: each one gives the interpreter lock away, and getting it back from a busy event
loop can take a switch interval.
Whatever queued while the last turn was written and synced goes into the next.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from headrace.topics.errors import HeadraceError
from headrace.topics.log import Appended, AppendFailed, LogRecord, LogUnavailable, NewRecord
from headrace.topics.log_embedded_file import broken_or_unavailable, encode_records, open_file, row_of

_ROW_BYTES_MAX = 512 * 1024  # a larger append becomes several rows, so that a reader never has to decode much at once
_ROWS_PER_STATEMENT = 64  # few different statements, all of them cached
_SWEEP_ROWS = 200  # trimmed rows deleted in one turn: appends wait for at most that


class Head:
    """The offsets of one partition; `timestamp_ms` is the newest append time, which never steps back."""

    __slots__ = ("end", "start", "timestamp_ms")

    def __init__(self, start: int, end: int, timestamp_ms: int) -> None:
        self.start = start
        self.end = end
        self.timestamp_ms = timestamp_ms


class AppendRequest:
    """Records on their way to a partition. After the turn `stored` holds them as readers see them."""

    __slots__ = ("bytes", "future", "partition_id", "records", "sizes", "stored")

    def __init__(
        self, partition_id: int, records: Sequence[NewRecord], sizes: list[int], future: asyncio.Future[Appended]
    ) -> None:
        self.partition_id = partition_id
        self.records = records
        self.sizes = sizes
        self.bytes = sum(sizes)
        self.future = future
        self.stored: list[LogRecord] = []


class WriteRequest:
    """Any other change, made by `write` in the turn's transaction. It checks before it writes: what it raises undoes
    nothing.
    """

    __slots__ = ("future", "write")

    def __init__(self, write: Callable[[Turn], Any], future: asyncio.Future[Any]) -> None:
        self.write = write
        self.future = future


class Turn:
    """One transaction in the making."""

    def __init__(self, connection: sqlite3.Connection, heads: dict[int, Head], now_ms: int) -> None:
        self.connection = connection
        self.heads = heads
        self.sweep: set[int] = set()  # partitions with rows below their start
        self._now_ms = now_ms
        self._rows: list[int | bytes] = []
        self._changed: set[int] = set()

    def append(self, request: AppendRequest) -> Appended:
        """Give the records offsets and a time, and keep their rows for `flush`."""
        head = self.heads[request.partition_id]
        timestamp_ms = max(self._now_ms, head.timestamp_ms)
        base = head.end
        stored = [
            LogRecord(offset, timestamp_ms, record.key, record.value, record.headers)
            for offset, record in enumerate(request.records, base)
        ]
        rows: list[int | bytes] = []
        for part in parts_of(stored, request.sizes, request.bytes):
            rows += (row_of(request.partition_id, part[-1].offset), encode_records(part))
        self._rows += rows
        request.stored = stored
        head.end = base + len(stored)
        head.timestamp_ms = timestamp_ms
        self._changed.add(request.partition_id)
        return Appended(base, timestamp_ms)

    def touch(self, partition_id: int) -> None:
        """The partition's head was changed."""
        self._changed.add(partition_id)

    def flush(self) -> None:
        """Write rows and heads, in as few statements as there can be."""
        insert_many(self.connection, "INSERT INTO batch (id, records)", self._rows, 2)
        values: list[int] = []
        for partition_id in self._changed:
            head = self.heads[partition_id]
            values += (partition_id, head.start, head.end, head.timestamp_ms)
        insert_many(self.connection, "REPLACE INTO head (id, start_offset, end_offset, timestamp_ms)", values, 4)
        self._rows = []
        self._changed.clear()


def parts_of(records: list[LogRecord], sizes: list[int], total: int) -> list[list[LogRecord]]:
    """The records in rows of about `_ROW_BYTES_MAX`."""
    if total <= _ROW_BYTES_MAX:
        return [records]
    parts: list[list[LogRecord]] = []
    filled = _ROW_BYTES_MAX
    for record, size in zip(records, sizes, strict=True):
        if filled + size > _ROW_BYTES_MAX:
            parts.append([])
            filled = 0
        parts[-1].append(record)
        filled += size
    return parts


def insert_many(connection: sqlite3.Connection, into: str, values: Sequence[int | bytes], width: int) -> None:
    """One statement for up to 64 rows: `executemany` would give the interpreter lock away for each row."""
    step = _ROWS_PER_STATEMENT * width
    row = "(" + ",".join("?" * width) + ")"
    for at in range(0, len(values), step):
        some = values[at : at + step]
        connection.execute(f"{into} VALUES {','.join([row] * (len(some) // width))}", some)


class Writer:
    """The thread. `settled` is called on the event loop once per turn with the appends that are durable, before their
    futures are set. `elsewhere` gets the ends that another process moved, as far as a turn meets them first.
    """

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        settled: Callable[[list[AppendRequest]], None],
        elsewhere: Callable[[dict[int, int]], None],
    ) -> None:
        self._path = path
        self._loop = loop
        self._settled = settled
        self._elsewhere = elsewhere
        self._queue: SimpleQueue[AppendRequest | WriteRequest | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="headrace-log-writer", daemon=True)
        self._connection: sqlite3.Connection | None = open_file(path, create=False)
        self._heads: dict[int, Head] | None = None
        self._data_version = -1
        self._sweep: set[int] = set()
        self.ends: dict[int, int] = {}
        """End offsets as this process knows them; replaced as a whole, so other threads may look."""
        self.takes = True
        """False while the file takes nothing: its disk is full, or its lock held by somebody who does not let go."""

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: AppendRequest | WriteRequest) -> None:
        self._queue.put(request)

    def sweep_all(self) -> None:
        """Delete what a process that died left below the starts. Call it before `start`."""
        if self._connection is not None:
            self._sweep.update(row[0] for row in self._connection.execute("SELECT id FROM head WHERE start_offset > 0"))

    def stop(self) -> None:
        """Write what is queued and end the thread. Blocks."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._close()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            turn: list[AppendRequest | WriteRequest] = []
            try:
                request = self._queue.get(block=not self._sweep)
                while True:
                    if request is None:
                        stopping = True
                    else:
                        turn.append(request)
                    request = self._queue.get_nowait()
            except Empty:
                pass
            if turn:
                self._write(turn)
            if self._sweep and not stopping:
                self._sweep_some()

    def _write(self, requests: list[AppendRequest | WriteRequest]) -> None:
        committing = False
        results: list[tuple[AppendRequest | WriteRequest, Any]]
        try:
            connection = self._connection = self._connection or open_file(self._path, create=False)
            turn = self._begin(connection)
            results = [(request, self._apply(turn, request)) for request in requests]
            turn.flush()
            committing = True
            connection.execute("COMMIT")
            self.takes = True
            self._sweep |= turn.sweep
            self.ends = {partition_id: head.end for partition_id, head in turn.heads.items()}
        except Exception as error:  # noqa: BLE001 - a writer that dies would let its callers wait for ever
            self._rollback()
            self.takes = not isinstance(error, sqlite3.Error)
            results = [(request, self._failure(error, committing=committing)) for request in requests]
        try:
            self._loop.call_soon_threadsafe(self._settle, results)
        except RuntimeError:  # the event loop is closed: nobody waits any more
            pass

    def _begin(self, connection: sqlite3.Connection) -> Turn:
        connection.execute("BEGIN IMMEDIATE")
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if self._heads is None or version != self._data_version:  # another process wrote
            rows = connection.execute("SELECT id, start_offset, end_offset, timestamp_ms FROM head").fetchall()
            self._heads = {row[0]: Head(row[1], row[2], row[3]) for row in rows}
            self._data_version = version
            if moved := {row[0]: row[2] for row in rows if self.ends.get(row[0]) != row[2]}:
                self._loop.call_soon_threadsafe(self._elsewhere, moved)
        return Turn(connection, self._heads, time.time_ns() // 1_000_000)

    def _apply(self, turn: Turn, request: AppendRequest | WriteRequest) -> Any:
        """The request's result, or the error that is its own alone."""
        try:
            if isinstance(request, AppendRequest):
                return turn.append(request)
            turn.flush()
            return request.write(turn)
        except (HeadraceError, UnicodeError, TypeError, ValueError) as error:
            return error

    def _rollback(self) -> None:
        """Forget the turn. A connection that cannot even do that is closed; the next one finds the file as the last
        commit left it.
        """
        self._heads = None
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failure(self, error: Exception, *, committing: bool) -> HeadraceError:
        if isinstance(error, HeadraceError):
            return error
        if not isinstance(error, sqlite3.Error):
            return AppendFailed(f"The writer of {self._path} failed: {error!r}.", code="HR9000")
        failure = broken_or_unavailable(self._path, error)
        if committing and isinstance(failure, LogUnavailable):
            return AppendFailed(failure.message, why="The commit did not end well.", do=failure.do)
        return failure

    def _settle(self, results: list[tuple[AppendRequest | WriteRequest, Any]]) -> None:
        """On the event loop: hand the records to waiting readers, then wake the callers."""
        self._settled(
            [
                request
                for request, result in results
                if isinstance(request, AppendRequest) and isinstance(result, Appended)
            ]
        )
        for request, result in results:
            if request.future.done():  # its caller was cancelled
                continue
            if isinstance(result, BaseException):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    def _sweep_some(self) -> None:
        """Delete some trimmed rows in a transaction of their own."""
        partition_id = next(iter(self._sweep))
        deleted = 0
        try:
            connection = self._connection = self._connection or open_file(self._path, create=False)
            connection.execute("BEGIN IMMEDIATE")
            (start,) = connection.execute("SELECT start_offset FROM head WHERE id = ?", (partition_id,)).fetchone()
            deleted = connection.execute(
                "DELETE FROM batch WHERE id IN (SELECT id FROM batch WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?)",
                (row_of(partition_id, 0), row_of(partition_id, start) - 1, _SWEEP_ROWS),
            ).rowcount
            connection.execute("COMMIT")
        except (sqlite3.Error, HeadraceError):  # only room is lost; the next trim or start tries again
            self._rollback()
        if deleted < _SWEEP_ROWS:
            self._sweep.discard(partition_id)
