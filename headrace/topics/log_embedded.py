"""`EmbeddedLog`: a small broker in one SQLite file, for `headrace dev` and for tests. It survives kill -9.

One owner per file runs the service; other processes on the machine may open it with `owner=False`, to publish and read.
Retention and compaction are not carried out: topics keep what is not trimmed. While an owner has it open, the process's
thread switch interval is short.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec

from headrace.topics.log import (
    MAKE_TOPIC,
    Appended,
    AppendRefused,
    Batch,
    Isolation,
    NewRecord,
    OffsetOutOfRange,
    Offsets,
    Position,
    TopicMissing,
    TopicPartition,
)
from headrace.topics.log_embedded_file import OwnerLock, open_file
from headrace.topics.log_embedded_reader import FileReads, ForeignWatch, Reader
from headrace.topics.log_embedded_writer import AppendRequest, Head, Turn, Writer, WriteRequest, insert_many
from headrace.topics.membership import Membership
from headrace.topics.membership_embedded import EmbeddedMembership
from headrace.topics.record_size import DEFAULT_MESSAGE_BYTES_MAX, checked_sizes
from headrace.topics.spec import TopicSpec, check_creatable

T = TypeVar("T")

_METADATA_BYTES_MAX = 4096  # Kafka's offset.metadata.max.bytes
_FOR_EVER = -1
# How long a busy event loop keeps the interpreter from the writer thread, which needs it six times a turn. With eight
# writers and a loop that is never idle an append took 91 ms at Python's 5 ms, and 2.4 ms at this.
_SWITCH_INTERVAL_S = 0.0005


class EmbeddedLog:
    """The `Log` of one SQLite file. `owner=True` makes the file if need be and locks it; a second owner gets
    `LogOwned`.
    """

    def __init__(self, path: Path, *, owner: bool) -> None:
        self.path = path
        self._owner = owner
        self._switch_interval_s = sys.getswitchinterval()
        self._lock = OwnerLock(path)
        self._reads = FileReads(path)
        self._writer: Writer | None = None
        self._watch: ForeignWatch | None = None
        self._ids: dict[TopicPartition, int] = {}
        self._looking = asyncio.Lock()  # first calls for a topic keep their order
        self._message_bytes_max: dict[str, int] = {}
        self._appending: set[TopicPartition] = set()
        self._readers: dict[tuple[TopicPartition, Isolation], Reader] = {}
        self._readers_of: dict[int, list[Reader]] = {}

    @property
    def reachable(self) -> bool:
        """False while the file takes nothing that is written: a full disk, say."""
        return self._writer is None or self._writer.takes

    async def __aenter__(self) -> Self:
        """Open the file. Raises `LogOwned`, `LogUnavailable`, `LogCorrupt`."""
        loop = asyncio.get_running_loop()
        await anyio.to_thread.run_sync(self._open, loop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is queued, close the file, give the lock back."""
        with anyio.CancelScope(shield=True):  # bounded by one commit
            await anyio.to_thread.run_sync(self._close)
            await anyio.lowlevel.checkpoint()  # lets the last turn's callers wake

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._owner:
            self._lock.acquire()
            sys.setswitchinterval(min(self._switch_interval_s, _SWITCH_INTERVAL_S))
        try:
            open_file(self.path, create=self._owner).close()
            self._writer = Writer(self.path, loop, self._appended, self._appended_elsewhere)
            if self._owner:
                self._writer.sweep_all()
            self._watch = ForeignWatch(self.path, loop, lambda: self._live_writer.ends, self._appended_elsewhere)
            self._writer.start()
            self._watch.start()
        except BaseException:
            self._give_back()
            raise

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._writer is not None:
            self._writer.stop()
            self._writer = None
        self._reads.close()
        self._give_back()

    def _give_back(self) -> None:
        if self._owner:
            sys.setswitchinterval(self._switch_interval_s)
        self._lock.release()

    @property
    def _live_writer(self) -> Writer:
        if self._writer is None:
            raise RuntimeError(f"the log {self.path} is not open")
        return self._writer

    # --- records ------------------------------------------------------------------------------------------------------

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        if at in self._appending:
            raise RuntimeError(f"another append to {at} is outstanding")
        self._appending.add(at)
        try:
            return await self.publish(at, records)
        finally:
            self._appending.discard(at)

    async def publish(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        partition_id = self._ids.get(at) or await self._id(at)
        sizes = checked_sizes(at, records, self._message_bytes_max[at.topic])
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._live_writer.submit(AppendRequest(partition_id, records, sizes, future))
        try:
            return await future
        except (UnicodeError, TypeError) as error:
            do = "Give headers names that are text."
            raise AppendRefused(f"A record for {at} cannot be encoded: {error}.", do=do) from error

    @asynccontextmanager
    async def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        name = (at, isolation)
        if name in self._readers:
            raise RuntimeError(f"another reader of {at} is open")
        partition_id = self._ids.get(at) or await self._id(at)
        if name in self._readers:
            raise RuntimeError(f"another reader of {at} is open")
        reader = self._readers[name] = Reader(at, partition_id, start, self._reads)
        self._readers_of.setdefault(partition_id, []).append(reader)
        watch = self._watch
        if watch is None:
            raise RuntimeError(f"the log {self.path} is not open")
        watch.watch(wanted=True)
        try:
            yield reader
        finally:
            del self._readers[name]
            self._readers_of[partition_id].remove(reader)
            watch.watch(wanted=bool(self._readers))

    def _appended(self, requests: list[AppendRequest]) -> None:
        for request in requests:
            for reader in self._readers_of.get(request.partition_id, ()):
                reader.appended(request.stored, request.bytes)

    def _appended_elsewhere(self, ends: dict[int, int]) -> None:
        for partition_id, end in ends.items():
            for reader in self._readers_of.get(partition_id, ()):
                reader.appended_elsewhere(end)

    async def offsets(self, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offsets]:
        ids = {partition: self._ids.get(partition) or await self._id(partition) for partition in at}

        def look(connection: sqlite3.Connection) -> dict[int, Offsets]:
            rows = connection.execute("SELECT id, start_offset, end_offset FROM head").fetchall()
            return {row[0]: Offsets(row[1], row[2]) for row in rows}

        found = await self._reads.run(look)
        return {partition: found[partition_id] for partition, partition_id in ids.items()}

    async def trim(self, at: TopicPartition, before: int) -> None:
        partition_id = self._ids.get(at) or await self._id(at)

        def write(turn: Turn) -> None:
            head = turn.heads[partition_id]
            if not 0 <= before <= head.end:
                raise OffsetOutOfRange(at, before, Offsets(head.start, head.end))
            if before > head.start:
                head.start = before
                turn.touch(partition_id)
                turn.flush()
                turn.sweep.add(partition_id)

        await self._write(write)

    # --- positions ----------------------------------------------------------------------------------------------------

    async def committed(self, group: str, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Position]:
        ids = {partition: self._ids.get(partition) or await self._id(partition) for partition in at}

        def look(connection: sqlite3.Connection) -> dict[int, Position]:
            rows = connection.execute(
                "SELECT id, next_offset, metadata FROM position WHERE grp = ?", (group,)
            ).fetchall()
            return {row[0]: Position(row[1], row[2]) for row in rows}

        found = await self._reads.run(look)
        return {partition: found[partition_id] for partition, partition_id in ids.items() if partition_id in found}

    async def commit(self, group: str, positions: Mapping[TopicPartition, Position]) -> None:
        rows: list[tuple[str, int, int, str]] = []
        for partition, position in positions.items():
            if len(position.metadata.encode()) > _METADATA_BYTES_MAX:
                raise AppendRefused(
                    f"The metadata of {group}'s position on {partition} is longer than {_METADATA_BYTES_MAX} bytes."
                )
            partition_id = self._ids.get(partition) or await self._id(partition)
            rows.append((group, partition_id, position.offset, position.metadata))
        if not rows:
            return

        def write(turn: Turn) -> None:
            turn.connection.executemany(
                "REPLACE INTO position (grp, id, next_offset, metadata) VALUES (?, ?, ?, ?)", rows
            )

        await self._write(write)

    # --- who owns what ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def join(
        self,
        group: str,
        *,
        runs: str,
        partitions: int,
        sources: Sequence[str],
        definitions: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Membership]:
        membership = EmbeddedMembership(
            partitions=partitions, sources=sources, count=self.partitions, member=f"{group}.{os.getpid()}"
        )
        # A task that outlives this call needs an owner: the end of the `async with`, which ends it and waits.
        task = asyncio.get_running_loop().create_task(membership.run(), name="headrace-membership")
        try:
            yield membership
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def expel(self, group: str) -> Sequence[str]:
        return ()  # one owner per file: the lock knows who is dead

    # --- topics -------------------------------------------------------------------------------------------------------

    async def partitions(self, topic: str) -> int:
        found = await self.describe([topic])
        if topic not in found:
            raise _missing(topic)
        return found[topic].partitions

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        specs = await self._reads.run(_specs)
        return {topic: specs[topic] for topic in topics if topic in specs}

    async def topics(self) -> Sequence[str]:
        return sorted(await self._reads.run(_specs))

    async def create(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        for spec in specs:
            check_creatable(spec, await self.nodes())

        def write(turn: Turn) -> list[str]:
            there = _specs(turn.connection)
            made: list[str] = []
            for spec in specs:
                if spec.name not in there:
                    _make(turn, _completed(spec))
                    there[spec.name] = spec
                    made.append(spec.name)
            return made

        return await self._write(write)

    async def nodes(self) -> int:
        return 1

    async def _id(self, at: TopicPartition) -> int:
        """The partition's number in the file, never 0. Raises `TopicMissing`."""

        def look(connection: sqlite3.Connection) -> tuple[dict[TopicPartition, int], dict[str, int]]:
            rows = connection.execute("SELECT topic, number, id FROM partition").fetchall()
            limits = {
                name: spec.max_message_bytes or DEFAULT_MESSAGE_BYTES_MAX for name, spec in _specs(connection).items()
            }
            return {TopicPartition(row[0], row[1]): row[2] for row in rows}, limits

        async with self._looking:
            if at not in self._ids:
                self._ids, self._message_bytes_max = await self._reads.run(look)  # topics never go away
        if at not in self._ids:
            raise _missing(str(at) if at.topic in self._message_bytes_max else at.topic)
        return self._ids[at]

    async def _write(self, write: Callable[[Turn], T]) -> T:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._live_writer.submit(WriteRequest(write, future))
        return await future


def _specs(connection: sqlite3.Connection) -> dict[str, TopicSpec]:
    rows = connection.execute("SELECT name, spec FROM topic").fetchall()
    return {row[0]: msgspec.json.decode(row[1], type=TopicSpec) for row in rows}


def _make(turn: Turn, spec: TopicSpec) -> None:
    connection = turn.connection
    connection.execute("INSERT INTO topic (name, spec) VALUES (?, ?)", (spec.name, msgspec.json.encode(spec)))
    connection.executemany(
        "INSERT INTO partition (topic, number) VALUES (?, ?)",
        [(spec.name, number) for number in range(spec.partitions)],
    )
    rows = connection.execute("SELECT id FROM partition WHERE topic = ?", (spec.name,)).fetchall()
    heads: list[int] = []
    for (partition_id,) in rows:
        turn.heads[partition_id] = Head(0, 0, 0)
        heads += (partition_id, 0, 0, 0)
    insert_many(connection, "INSERT INTO head (id, start_offset, end_offset, timestamp_ms)", heads, 4)


def _completed(spec: TopicSpec) -> TopicSpec:
    """The spec with what this log does where nothing was asked for: it keeps everything, and stamps the append time."""
    return msgspec.structs.replace(
        spec,
        cleanup_policy=spec.cleanup_policy or "delete",
        retention_ms=_FOR_EVER if spec.retention_ms is None else spec.retention_ms,
        retention_bytes=_FOR_EVER if spec.retention_bytes is None else spec.retention_bytes,
        max_message_bytes=spec.max_message_bytes or DEFAULT_MESSAGE_BYTES_MAX,
        min_insync_replicas=1,
        timestamp_type="LogAppendTime",
        segment_bytes=spec.segment_bytes,
        unclean_leader_election=False,
    )


def _missing(topic: str) -> TopicMissing:
    return TopicMissing(f"{topic} does not exist.", do=MAKE_TOPIC)
