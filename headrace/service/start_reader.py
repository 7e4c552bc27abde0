"""Reads starts again that were left in the run log: for runs whose turn has come, and for checkpoints. One per process, one partition at a time.

The owner's own reader goes on meanwhile. A partition may have one reader for each isolation; nobody else reads the run log `committed`, and it has no
transactions, so that both see the same records.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from headrace.topics.command import Start
from headrace.topics.errors import HeadraceError
from headrace.topics.log import LogCorrupt, LogRecord, OffsetOutOfRange
from headrace.topics.run_record import CommandRecord, decode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from headrace.topics.log import Batch, Log, TopicPartition

_NEAR = 2_000  # offsets that are read past, rather than opening the log again further on


class Wants(Protocol):
    """Whoever waits for starts of its partition."""

    @property
    def at(self) -> TopicPartition:
        """The partition."""
        ...

    def back(self, run: str, start: Start) -> None:
        """A start that was wanted."""
        ...

    def gone(self, error: HeadraceError) -> None:
        """A start cannot be had: the log does not have what the state says. Nothing more is read for it."""
        ...


class StartReader:
    """`want` never waits; `run` is the task that reads."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._wanted: dict[Wants, dict[str, int]] = {}
        self._wake = asyncio.Event()
        self._reading = asyncio.Lock()

    def want(self, who: Wants, run: str, offset: int) -> None:
        """Read this start, and give it back."""
        self._wanted.setdefault(who, {})[run] = offset
        self._wake.set()

    def forget(self, who: Wants) -> None:
        """It wants nothing any more."""
        self._wanted.pop(who, None)

    async def run(self) -> None:
        """Read what is wanted, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                await self._read_for(next(iter(self._wanted)))

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Others that read the run log `committed` wait meanwhile."""
        async with self._reading:
            yield

    @asynccontextmanager
    async def starts(self, at: TopicPartition) -> AsyncGenerator[Starts]:
        """Starts of one partition by offset; best in rising order. Others wait meanwhile."""
        async with self.alone():
            starts = Starts(self._log, at)
            try:
                yield starts
            finally:
                await starts.close()

    async def _read_for(self, who: Wants) -> None:
        """All that one partition wants, in log order as far as it is known."""
        try:
            async with self.starts(who.at) as starts:
                while wanted := self._wanted.get(who):
                    for run, offset in sorted(wanted.items(), key=lambda item: item[1]):
                        start = await starts.at(offset)
                        if wanted.pop(run, None) is not None and self._wanted.get(who) is wanted:
                            who.back(run, start)
                    if not wanted and self._wanted.get(who) is wanted:
                        del self._wanted[who]
        except HeadraceError as error:
            if self._wanted.pop(who, None) is not None:
                who.gone(error)


class Starts:
    """A way through one partition. `at` raises what the log raises, and `LogCorrupt` if there is no start at the offset."""

    def __init__(self, log: Log, partition: TopicPartition) -> None:
        self._log = log
        self._partition = partition
        self._stack = AsyncExitStack()
        self._batches: AsyncIterator[Batch] | None = None
        self._read: dict[int, LogRecord] = {}  # of the batch at hand
        self._next = -1  # the offset behind it

    async def at(self, offset: int) -> Start:
        """The start at this offset."""
        record = self._read.get(offset)
        if record is None:
            record = await self._find(offset)
        entry = decode(record.value)
        if not isinstance(entry, CommandRecord) or not isinstance(entry.body, Start):
            raise self._missing(offset)
        return entry.body

    async def close(self) -> None:
        """Read no more."""
        self._batches = None
        await self._stack.aclose()

    async def _find(self, offset: int) -> LogRecord:
        if self._batches is None or not self._next <= offset < self._next + _NEAR:
            await self._open(offset)
        try:
            await self._read_to(offset)
        except OffsetOutOfRange as error:
            if not error.offset < error.offsets.start <= offset:
                raise
            await self._open(offset)  # what lay before it was trimmed while it was read past
            await self._read_to(offset)
        if offset not in self._read:
            raise self._missing(offset)
        return self._read[offset]

    async def _open(self, offset: int) -> None:
        await self._stack.aclose()
        reading = self._log.read(self._partition, offset, isolation="committed")
        self._batches = await self._stack.enter_async_context(reading)

    async def _read_to(self, offset: int) -> None:
        """Until the batch at hand holds the offset, or lies behind it."""
        assert self._batches is not None  # noqa: S101 - opened
        async for batch in self._batches:
            self._read = {each.offset: each for each in batch.records if isinstance(each, LogRecord)}
            self._next = batch.goes_on_at
            if offset < self._next:
                break

    def _missing(self, offset: int) -> LogCorrupt:
        return LogCorrupt(
            f"There is no start at offset {offset} of {self._partition}.",
            why="The log was trimmed, truncated or copied while it was in use.",
            do="The partition stops here; restart the service: it folds the log anew.",
        )
