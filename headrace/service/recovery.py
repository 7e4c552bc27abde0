"""Where a partition's state begins: the newest complete checkpoint that the log itself confirms, else the log's first record.

A candidate counts only if the fold from `as_of` + 1, with the gate that the candidate has, accepts every one of its chunks: what a zombie wrote, or under a
token that was lost half-way, never does. A hint saves the search and is checked the same way. Nothing here writes. Called by `owner.py` and `run_view/scan.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.checkpoint import CheckpointUnusable, Load
from headrace.service.engine.fold import fold
from headrace.topics.errors import Fatal
from headrace.topics.log import LogRecord, Unreadable
from headrace.topics.outcome import CheckpointChunk
from headrace.topics.run_record import OutcomeRecord, decode, unreadable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from headrace.service.engine.state import PartitionState
    from headrace.topics.log import Isolation, Log, Offsets, TopicPartition

SLICE_S = 0.005
"""The longest stretch of folding before the event loop gets its turn."""

_MARK = b'"is":"checkpoint.chunk"'  # in every chunk's value; in little else, and that is decoded then


class LogGap(Fatal):
    """The log's first records are gone, and no checkpoint has what they said."""

    code = "HR5112"

    def __init__(self, at: TopicPartition, start: int, as_of: int | None) -> None:
        found = "there is no complete checkpoint" if as_of is None else f"the newest checkpoint is as of {as_of}"
        super().__init__(
            f"{at} begins at offset {start}, but {found}.",
            why="Records that runs still need were deleted: by retention, by another tool, or by a topic that was copied in part.",
            do="Restore the topic from a copy. If those runs may be forgotten, choose a new app.name.",
        )


class Candidate(msgspec.Struct):
    """A checkpoint whose chunks are all there; whether it counts is not known yet."""

    as_of: int
    offsets: list[int] = []  # of its chunks
    chunks: list[CheckpointChunk] = []
    size_bytes: int = 0  # of its records' values


class Recovered(msgspec.Struct):
    """`state` has everything below its `next_offset`. Without a candidate it is a new one, and the log begins at 0."""

    state: PartitionState
    candidate: Candidate | None
    records: int = 0  # that were folded on top of the candidate
    size_bytes: int = 0  # of these


class Recovery:
    """One partition. `make` gives a new state; `offsets` are the log's when the recovery began: nothing at or behind `end` is looked at."""

    def __init__(
        self,
        log: Log,
        at: TopicPartition,
        make: Callable[[], PartitionState],
        offsets: Offsets,
        turn: asyncio.Lock | None = None,
        isolation: Isolation = "all",
    ) -> None:
        # held while folding: of several partitions, one has a slice in a turn of the loop
        self._turn = turn or asyncio.Lock()
        self._log = log
        self._at = at
        self._isolation: Isolation = isolation
        self._make = make
        self._start, self._end = offsets.start, offsets.end

    async def newest(self, hint: int | None = None) -> Recovered:
        """From the newest checkpoint that counts. `hint`: where its first chunk is said to be. Raises `LogGap`, `UnknownRecord`, and what the log raises."""
        as_of: int | None = None
        if hint is not None and self._start <= hint < self._end:
            candidate = await self._candidate(hint)
            recovered = None if candidate is None else await self._checked(candidate)
            if recovered is not None:
                return recovered
        for first in reversed(await self._first_chunks()):
            candidate = None if first == hint else await self._candidate(first)
            if candidate is None:
                continue
            as_of = candidate.as_of if as_of is None else as_of
            recovered = await self._checked(candidate)
            if recovered is not None:
                return recovered
        if self._start > 0:
            raise LogGap(self._at, self._start, as_of)
        return Recovered(self._make(), None)

    async def oldest(self) -> Recovered:
        """From the log's first record, or from the oldest checkpoint that counts; its own records are not folded yet. Raises as `newest`."""
        if self._start == 0:
            return Recovered(self._make(), None)
        for first in await self._first_chunks():
            candidate = await self._candidate(first)
            if candidate is not None and await self._checked(candidate) is not None:
                return Recovered(await self._loaded(candidate), candidate)
        raise LogGap(self._at, self._start, None)

    async def known(self, first: int) -> Recovered | None:
        """From the checkpoint that begins at this offset, which the caller knows to count. None: the log has it no more, or not all that follows it."""
        if not self._start <= first < self._end:
            return None
        candidate = await self._candidate(first)
        if candidate is None or candidate.as_of + 1 < self._start:
            return None
        return Recovered(await self._loaded(candidate), candidate)

    # --- finding ---------------------------------------------------------------------------------------------------

    async def _first_chunks(self) -> list[int]:
        """Offsets of records that begin a checkpoint which has an end somewhere. One without would be looked for up to the log's end, each of them."""
        found: list[tuple[int, tuple[int, int]]] = []
        ended: set[tuple[int, int]] = set()
        async with aclosing(self._batches(self._start)) as batches:
            async for records in batches:
                for record, token, chunk in _chunks(records):
                    if chunk.index == 0:
                        found.append((record.offset, (token, chunk.as_of)))
                    if chunk.last:
                        ended.add((token, chunk.as_of))
        return [offset for offset, which in found if which in ended]

    async def _candidate(self, first: int) -> Candidate | None:
        """The checkpoint that begins at this offset, if it has an end."""
        assembly: _Assembly | None = None
        async with aclosing(self._batches(first)) as batches:
            async for records in batches:
                for record, token, chunk in _chunks(records):
                    if assembly is None:
                        if record.offset != first or chunk.index:
                            return None
                        assembly = _Assembly(token, chunk.as_of)
                    if not assembly.add(record, token, chunk):
                        return None
                    if assembly.complete:
                        return assembly.candidate
                if assembly is None:
                    return None
        return None

    # --- checking --------------------------------------------------------------------------------------------------

    async def _checked(self, candidate: Candidate) -> Recovered | None:
        """The state behind the candidate's last chunk, or None if it does not count."""
        if candidate.as_of + 1 < self._start or candidate.offsets[0] <= candidate.as_of:
            return None
        try:
            recovered = Recovered(await self._loaded(candidate), candidate)
        except CheckpointUnusable:
            return None
        wanted = set(candidate.offsets)
        async with aclosing(self._batches(candidate.as_of + 1)) as batches:
            async for records in batches:
                async with self._turn:
                    counts = await self._fold(recovered, records, wanted)
                if not counts:
                    return None
                if recovered.state.next_offset > candidate.offsets[-1]:
                    return recovered
        return None

    @staticmethod
    async def _fold(recovered: Recovered, records: list[LogRecord], wanted: set[int]) -> bool:
        """Fold up to the last wanted record; False if one of them does not count."""
        state, last = recovered.state, max(wanted)
        slice_ends = _now() + SLICE_S
        for record in records:
            size = len(record.value or b"")
            folded = fold(state, record.offset, record.timestamp_ms, size, decode(record.value))
            recovered.records += 1
            if record.offset not in wanted:
                recovered.size_bytes += size
            elif folded.skip is not None:
                return False
            elif record.offset == last:
                return True
            if _now() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = _now() + SLICE_S
        return True

    async def _loaded(self, candidate: Candidate) -> PartitionState:
        loading = Load(self._make())
        for chunk in candidate.chunks:
            loading.add(chunk)
            await asyncio.sleep(0)
        return loading.finished()

    async def _batches(self, start: int) -> AsyncGenerator[list[LogRecord]]:
        """The records from `start` to where the log ended when this began. Close it: a partition has one reader at a time."""
        if start >= self._end:
            return
        async with self._log.read(self._at, start, isolation=self._isolation) as batches:
            async for batch in batches:
                records = [record for record in batch.records if record.offset < self._end]
                yield [_readable(self._at, record) for record in records]
                if batch.goes_on_at >= self._end:
                    return


class _Assembly:
    """Chunks of one checkpoint, as they come."""

    def __init__(self, token: int, as_of: int) -> None:
        self.candidate = Candidate(as_of, [], [])
        self.complete = False
        self._token = token

    def add(self, record: LogRecord, token: int, chunk: CheckpointChunk) -> bool:
        """False if one before it is missing. Copies, and what other owners wrote, are passed over."""
        found = self.candidate
        if token != self._token or chunk.as_of != found.as_of or chunk.index < len(found.chunks):
            return True
        if chunk.index > len(found.chunks):
            return False
        found.offsets.append(record.offset)
        found.chunks.append(chunk)
        found.size_bytes += len(record.value or b"")
        self.complete = chunk.last
        return True


def _readable(at: TopicPartition, record: LogRecord | Unreadable) -> LogRecord:
    if isinstance(record, Unreadable):
        raise unreadable(at, record)
    return record


def _chunks(records: list[LogRecord]) -> Iterator[tuple[LogRecord, int, CheckpointChunk]]:
    """Those that are chunks, with token and chunk."""
    for record in records:
        if record.value is not None and _MARK in record.value:
            entry = decode(record.value)
            if isinstance(entry, OutcomeRecord) and isinstance(entry.body, CheckpointChunk):
                yield record, entry.token, entry.body


def _now() -> float:
    return asyncio.get_running_loop().time()
