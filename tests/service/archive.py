"""A way to the log that keeps what is trimmed: a test can fold all that was ever written, and hold it against what a service knows."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.folded import Folded
from headrace.service.engine.instruction import Close
from headrace.service.engine.state import PartitionState
from headrace.topics.log import (
    AppendRefused,
    Batch,
    Isolation,
    LogRecord,
    OffsetOutOfRange,
    Offsets,
    TopicPartition,
)
from headrace.topics.run_record import decode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place


class Archive:
    """Trimmed records of a place's run log, by partition and offset; for several processes, one after the other or at once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.records: dict[tuple[int, int], LogRecord] = {}
        self.trims: list[tuple[TopicPartition, int]] = []
        self._reading = asyncio.Lock()  # a partition has one reader at a time

    async def trim(
        self, at: TopicPartition, before: int, trim: Callable[[TopicPartition, int], Awaitable[None]]
    ) -> None:
        """Keep what is trimmed."""
        async with self._reading:
            found = await self._now(at.partition)
            self.records.update(((at.partition, record.offset), record) for record in found if record.offset < before)
            await trim(at, before)
        self.trims.append((at, before))

    async def all(self, partition: int = 0) -> list[LogRecord]:
        """All records that ever were, by offset."""
        async with self._reading:
            found = await self._now(partition)
        kept = {offset: record for (number, offset), record in self.records.items() if number == partition}
        kept |= {record.offset: record for record in found}
        assert sorted(kept) == list(range(len(kept)))
        return [kept[offset] for offset in sorted(kept)]

    async def _now(self, partition: int) -> list[LogRecord]:
        while True:
            try:
                return await self.place.records("shop.runs", partition)
            except OffsetOutOfRange:  # a trim of somebody who was killed has happened after all
                continue

    async def agrees(self, state: PartitionState) -> bool:
        """Whether all records up to the state's end, the trimmed ones too, come to that state, now."""
        while len(records := await self.all(state.partition)) < state.next_offset:
            await asyncio.sleep(0)
        whole = new_state(
            topic=state.topic,
            partition=state.partition,
            partitions=state.partitions,
            client_retention_ms=state.client_retention_ms,
        )
        for record in records[: state.next_offset]:
            _fold(whole, record)
        return whole == state

    async def endings(self) -> Counter[str]:
        """How often each run of the only partition ended, of those that have begun; 0 for the open ones."""
        state = new_state(topic="shop.runs", partition=0, partitions=1, client_retention_ms=86_400_000)
        found: Counter[str] = Counter()
        for record in await self.all():
            for instruction in _fold(state, record).instructions:
                if isinstance(instruction, Close):
                    found[instruction.run.id] += 1
        return found + Counter(dict.fromkeys(state.runs, 0))


def _fold(state: PartitionState, record: LogRecord) -> Folded:
    value = record.value or b""
    return fold(state, record.offset, record.timestamp_ms, len(value), decode(value))


class ArchivedLog(FaultLog):
    """One process's way to the log. `forbids`: it has no permission to trim."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive.place.log)
        self.archive = archive
        self.forbids = False
        self._truncated: dict[TopicPartition, Offsets] = {}

    def truncate(self, at: TopicPartition, offsets: Offsets) -> None:
        """The next batch of this partition does not come: its reader finds the log ending before it."""
        self._truncated[at] = offsets

    @asynccontextmanager
    async def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AsyncIterator[AsyncIterator[Batch]]:
        async with super().read(at, start, isolation=isolation) as batches:
            yield self._checked(at, batches)

    async def _checked(self, at: TopicPartition, batches: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
        async for batch in batches:
            offsets = self._truncated.pop(at, None)
            if offsets is not None:
                raise OffsetOutOfRange(at, batch.records[0].offset, offsets)
            yield batch

    async def trim(self, at: TopicPartition, before: int) -> None:
        if self.forbids:
            raise AppendRefused(f"Trimming {at} is not allowed.")
        await self.archive.trim(at, before, super().trim)
