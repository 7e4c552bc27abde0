"""Reading partitions of the run log through gate, dedupe and fold, as far as they go now or for ever.

Used by every `run` command.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec

from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.folded import Folded
from headrace.service.loop_turn import in_turns
from headrace.service.names import Names
from headrace.service.recovery import Recovery
from headrace.topics.command import ChildEnded
from headrace.topics.errors import Fatal
from headrace.topics.log import OffsetOutOfRange, Offsets, TopicPartition, Unreadable
from headrace.topics.outcome import AttemptSucceeded, Emitted
from headrace.topics.run_record import CommandRecord, OutcomeRecord, RunRecord, UnknownRecord, decode, unreadable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from headrace.service.engine.run_state import Woke
    from headrace.service.engine.state import PartitionState
    from headrace.service.settings import Settings
    from headrace.topics.log import Batch, Isolation, Log, LogRecord

PARTITIONS_AT_ONCE = 8  # readers open at a time: each buffers up to a fetch


class Seen(msgspec.Struct, gc=False):
    """One record of the run log and what the fold made of it. `state` is the partition's, until the next record."""

    offset: int
    timestamp_ms: int
    record: RunRecord
    folded: Folded
    state: PartitionState
    raw: LogRecord


class Watcher(Protocol):
    """Takes what a scan sees."""

    def begin(self, state: PartitionState) -> None:
        """Called first for a partition whose log was trimmed: its state as of the record before `state.next_offset`.

        What was before that is not seen.
        """
        ...

    def see(self, seen: Seen) -> None:
        """Called for every record of a partition, in offset order."""
        ...

    def end(self, state: PartitionState) -> None:
        """Called when the end of a partition was reached, with its state."""
        ...


async def scan(log: Log, settings: Settings, watcher: Watcher, *, only: Sequence[int] = ()) -> tuple[Fatal, ...]:
    """Read all partitions (or `only` these) of the app's run log from start to where they end now.

    What stopped single partitions (a record that this version cannot read, say) is returned; the others are complete.
    Raises `TopicMissing`, `LogUnavailable`.
    """
    problems: list[Fatal] = []
    topic = Names(settings.app.name).runs
    count = await log.partitions(topic)
    partitions = [TopicPartition(topic, number) for number in only or range(count)]
    ends = await log.offsets(partitions)
    slots = anyio.CapacityLimiter(PARTITIONS_AT_ONCE)

    async def one(at: TopicPartition) -> None:
        async with slots:
            reading = Reading(at, settings, partitions=count, begin=watcher.begin)
            try:
                async with aclosing(reading.until(log, ends[at])) as records:
                    async for seen in records:
                        watcher.see(seen)
            except Fatal as error:
                problems.append(error)
            watcher.end(reading.state)

    async with anyio.create_task_group() as group:
        for at in partitions:
            group.start_soon(one, at)
    return tuple(problems)


class Reading:
    """One partition, folded as data, by the same settings as its owner's.

    Payloads in histories of runs are dropped on the way: no coroutine will be rebuilt from them.
    """

    def __init__(
        self,
        at: TopicPartition,
        settings: Settings,
        *,
        partitions: int,
        begin: Callable[[PartitionState], None] = lambda _: None,
        isolation: Isolation = "all",
    ) -> None:
        self.at = at
        self._isolation: Isolation = isolation
        self._new_state = partial(
            new_state,
            topic=at.topic,
            partition=at.partition,
            partitions=partitions,
            client_retention_ms=settings.runs.client_id_retention_ms,
            retry_retention_ms=settings.runs.retry_retention_ms,
        )
        self.state = self._new_state()
        self._begin = begin

    async def until(self, log: Log, offsets: Offsets) -> AsyncGenerator[Seen]:
        """Everything from the start to `offsets.end`; further, if the log is trimmed meanwhile."""
        offsets = await self._begun(log, offsets)
        if offsets.start >= offsets.end:
            return
        async with self._read(log, offsets.start) as batches:
            async for batch in batches:
                async for seen in in_turns(self.folded(batch, offsets.end)):
                    yield seen
                if batch.goes_on_at >= offsets.end:
                    return

    async def following(self, log: Log) -> AsyncGenerator[Seen | None]:
        """Everything from the start on, for ever; None once, when what was there at the beginning has been seen."""
        offsets = await self._begun(log, (await log.offsets([self.at]))[self.at])
        caught_up = False
        if offsets.start >= offsets.end:
            caught_up = True
            yield None
        async with self._read(log, offsets.start) as batches:
            async for batch in batches:
                async for seen in in_turns(self.folded(batch)):
                    yield seen
                if not caught_up and batch.goes_on_at >= offsets.end:
                    caught_up = True
                    yield None

    async def _begun(self, log: Log, offsets: Offsets) -> Offsets:
        """Where to read from: the log's first record, or the one behind the oldest checkpoint. Raises `LogGap`."""
        while offsets.start > 0:
            try:
                recovered = await Recovery(log, self.at, self._new_state, offsets, isolation=self._isolation).oldest()
            except OffsetOutOfRange:
                # it was trimmed further meanwhile, for a checkpoint that may lie behind the end we knew
                offsets = (await log.offsets([self.at]))[self.at]
                continue
            self.state = recovered.state
            self._begin(self.state)
            return Offsets(self.state.next_offset, offsets.end)
        return offsets

    @asynccontextmanager
    async def _read(self, log: Log, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        try:
            async with log.read(self.at, start, isolation=self._isolation) as batches:
                yield batches
        except OffsetOutOfRange as error:
            raise Fatal(
                f"{self.at} was trimmed to offset {error.offsets.start} while it was read at {error.offset}.",
                code=error.code,
                why="A service writes checkpoints and trims what they make needless.",
                do="Nothing is wrong with the log: ask again.",
            ) from error

    def folded(self, batch: Batch, end: int | None = None) -> Iterator[Seen]:
        """The batch's records up to `end`, each folded when it is asked for. Raises `UnknownRecord`.

        What is not shown is not folded either: else a run could be over whose end nobody has seen.
        """
        for raw in batch.records:
            if end is not None and raw.offset >= end:
                return
            if isinstance(raw, Unreadable):
                raise unreadable(self.at, raw)
            try:
                record = decode(raw.value)
            except UnknownRecord as error:
                raise UnknownRecord(
                    f"{self.at}, offset {raw.offset}: {error.message}", why=error.why, do=error.do
                ) from None
            folded = fold(self.state, raw.offset, raw.timestamp_ms, len(raw.value or b""), record)
            yield Seen(raw.offset, raw.timestamp_ms, record, folded, self.state, raw)
            self._forget(record)

    def _forget(self, record: RunRecord) -> None:
        """What a run's coroutine has noticed is of no use here, and may be large."""
        if isinstance(record, CommandRecord | OutcomeRecord):
            run = self.state.runs.get(getattr(record.body, "run", ""))
            if run is not None and run.history:
                noticed, at_ms = run.history[-1]
                run.history[-1] = (_without_payload(noticed), at_ms)


def _without_payload(noticed: Woke) -> Woke:
    match noticed:
        case AttemptSucceeded():
            return msgspec.structs.replace(noticed, result=msgspec.Raw(b"null"))
        case ChildEnded():
            return msgspec.structs.replace(noticed, result=msgspec.Raw(b"null"))
        case Emitted():
            return msgspec.structs.replace(noticed, data=msgspec.Raw(b"null"))
        case _:
            return noticed
