"""The dead letters of an app, as they lie in their topics: listed, counted, shown. One of these a process: only one reader of a partition may be open.

A list is read backwards, from the newest letters on; marks are read once, and from then on as far as they have come.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from headrace.service.letters.book import Book
from headrace.service.letters.view import LetterCount, detail_of, letter_id, view_of
from headrace.service.request_error import NotFound
from headrace.topics.dead_letter import dead_letter_topic, parse_dead_letter
from headrace.topics.letter_mark import parse_mark
from headrace.topics.log import LogRecord, OffsetOutOfRange, Offsets, TopicPartition, every_partition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from headrace.service.letters.view import DeadLetterDetail, DeadLetterView, LetterFilter
    from headrace.service.names import Names
    from headrace.topics.dead_letter import DeadLetter
    from headrace.topics.log import Log

NO_SUCH_LETTER = "HR3301"
_CHUNK = 500  # records of one look backwards: the first; then twice as many each time
_CHUNK_MAX = 8_000
_SUFFIX = dead_letter_topic("")
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


class Found(NamedTuple):
    """A letter where it lies."""

    at: TopicPartition
    record: LogRecord
    letter: DeadLetter

    @property
    def id(self) -> str:
        """What people call it."""
        return letter_id(self.at, self.record.offset)


class Letters:
    """All methods raise what the log raises."""

    def __init__(self, log: Log, names: Names) -> None:
        self.log = log
        self.names = names
        self._book = Book(names.refused)
        self._read_to: dict[TopicPartition, int] = {}
        self._locks: dict[TopicPartition, asyncio.Lock] = {}
        self._noting = asyncio.Lock()

    # --- what was done ------------------------------------------------------------------------------------------------

    async def book(self) -> Book:
        """What is known now of what was done about letters."""
        async with self._noting:
            for at, offsets in (await self._offsets([self.names.refused])).items():
                self._book.forget_below(at, offsets.start)
                begin = max(self._read_to.get(at, 0), offsets.start)
                async for record in self.records(at, Offsets(begin, offsets.end)):
                    mark = parse_mark(record)
                    if mark is not None:
                        self._book.note(at, record.offset, record.timestamp_ms, mark)
                self._read_to[at] = max(begin, offsets.end)
            return self._book

    # --- what there is ------------------------------------------------------------------------------------------------

    async def topics(self) -> list[str]:
        """Dead-letter topics: of sources and of outputs, whoever's. Letters say themselves which app's they are."""
        return [name for name in await self.log.topics() if name.endswith(_SUFFIX)]

    async def newest(self, wanted: LetterFilter, limit: int = 0) -> list[DeadLetterView]:
        """Letters, the newest first; all of them if `limit` is 0."""
        book = await self.book()
        found: list[tuple[int, DeadLetterView]] = []
        for at, offsets in (await self._places(wanted)).items():
            found += await self._backwards(at, offsets, wanted, book, limit)
        found.sort(key=lambda each: (-each[0], each[1].topic, each[1].partition, -each[1].offset))
        return [view for _, view in found[: limit or None]]

    async def counts(self, wanted: LetterFilter) -> list[LetterCount]:
        """How many there are, by topic, stage, code and workflow."""
        book = await self.book()
        counts: dict[tuple[str, str, str, str], LetterCount] = {}
        for at, offsets in (await self._places(wanted)).items():
            async for found in self.letters(at, offsets):
                letter, at_ms = found.letter, found.record.timestamp_ms
                state = book.of(at, found.record.offset).state
                if wanted.wants(letter, at_ms, state):
                    name = (at.topic, letter.stage.value, letter.code, letter.workflow or "")
                    count = counts.setdefault(
                        name,
                        LetterCount(topic=at.topic, stage=letter.stage, code=letter.code, workflow=letter.workflow),
                    )
                    count.add(at_ms, state)
        return [counts[name] for name in sorted(counts)]

    async def selected(self, wanted: LetterFilter) -> dict[TopicPartition, list[int]]:
        """Where those lie that are wanted: offsets by partition, the oldest first."""
        book = await self.book()
        found: dict[TopicPartition, list[int]] = {}
        for at, offsets in (await self._places(wanted)).items():
            async for each in self.letters(at, offsets):
                offset = each.record.offset
                if wanted.wants(each.letter, each.record.timestamp_ms, book.of(at, offset).state):
                    found.setdefault(at, []).append(offset)
        return found

    async def placed(self, ids: Iterable[str]) -> dict[TopicPartition, list[int]]:
        """Where these lie, as `selected` says it. Raises `NotFound`."""
        found: dict[TopicPartition, list[int]] = {}
        for id_ in dict.fromkeys(ids):
            one = await self.one(id_)
            found.setdefault(one.at, []).append(one.record.offset)
        return {at: sorted(found[at]) for at in sorted(found)}

    async def get(self, id_: str) -> DeadLetterDetail:
        """One letter. Raises `NotFound`."""
        found = await self.one(id_)
        return detail_of(*found, (await self.book()).of(found.at, found.record.offset))

    async def one(self, id_: str) -> Found:
        """One letter as it lies there. Raises `NotFound`."""
        at, offset = place_of(id_)
        if at.topic not in await self.topics() or at.partition >= await self.log.partitions(at.topic):
            raise _no_letter(id_, f"{at} is no partition of a dead-letter topic.")
        offsets = (await self.log.offsets([at]))[at]
        if offset < offsets.start:
            raise _no_letter(id_, "It was resolved, and deleted.")
        found = [each async for each in self.letters(at, Offsets(offset, min(offset + 1, offsets.end)))]
        if found:
            return found[0]
        raise _no_letter(id_, "No record there is a dead letter.")

    # --- reading ------------------------------------------------------------------------------------------------------

    async def letters(self, at: TopicPartition, offsets: Offsets) -> AsyncGenerator[Found]:
        """The dead letters among the records of a partition, in order."""
        async for record in self.records(at, offsets):
            letter = parse_dead_letter(record)
            if letter is not None:
                yield Found(at, record, letter)

    async def records(self, at: TopicPartition, offsets: Offsets) -> AsyncGenerator[LogRecord]:
        """The records of a partition as far as they can be read, in order. What is deleted meanwhile is left out."""
        start = offsets.start
        while start < offsets.end:
            batch, start = await self._some(at, start, offsets.end)
            for record in batch:
                yield record

    async def _some(self, at: TopicPartition, start: int, end: int) -> tuple[list[LogRecord], int]:
        """Some records, and where to go on. Nothing is held open in between: who reads may be long in coming back."""
        found: list[LogRecord] = []
        try:
            async with self._reading(at), self.log.read(at, start) as batches:
                async for batch in batches:
                    start = batch.goes_on_at
                    found += [each for each in batch.records if isinstance(each, LogRecord) and each.offset < end]
                    if start >= end or len(found) >= _CHUNK:
                        break
        except OffsetOutOfRange as error:
            if error.offsets.start <= start:
                raise
            return found, error.offsets.start
        return found, start

    @asynccontextmanager
    async def _reading(self, at: TopicPartition) -> AsyncGenerator[None]:
        async with self._locks.setdefault(at, asyncio.Lock()):
            yield

    async def _backwards(
        self, at: TopicPartition, offsets: Offsets, wanted: LetterFilter, book: Book, limit: int
    ) -> list[tuple[int, DeadLetterView]]:
        found: list[tuple[int, DeadLetterView]] = []
        end, size = offsets.end, _CHUNK
        while end > offsets.start and not (limit and len(found) >= limit):
            start = max(offsets.start, end - size)
            async for _, record, letter in self.letters(at, Offsets(start, end)):
                handled = book.of(at, record.offset)
                if wanted.wants(letter, record.timestamp_ms, handled.state):
                    found.append((record.timestamp_ms, view_of(at, record, letter, handled)))
            end, size = start, min(2 * size, _CHUNK_MAX)
        return found

    async def _places(self, wanted: LetterFilter) -> Mapping[TopicPartition, Offsets]:
        return await self._offsets([topic for topic in await self.topics() if wanted.wants_topic(topic)])

    async def _offsets(self, topics: Sequence[str]) -> dict[TopicPartition, Offsets]:
        """Of the partitions of these topics that have something."""
        places = [at for topic in topics for at in await every_partition(self.log, topic)]
        if not places:
            return {}
        offsets = await self.log.offsets(places)
        return {at: offsets[at] for at in places if offsets[at].start < offsets[at].end}


def place_of(id_: str) -> tuple[TopicPartition, int]:
    """Where a letter lies by its name. Raises `NotFound`."""
    parts = id_.rsplit("/", 2)
    if len(parts) != 3 or not parts[0] or not all(_NUMBER.fullmatch(part) for part in parts[1:]):
        raise _no_letter(id_, "A dead letter is named by topic/partition/offset.")
    return TopicPartition(parts[0], int(parts[1])), int(parts[2])


def _no_letter(id_: str, why: str) -> NotFound:
    do = "`headrace dlq list` names those that are there."
    return NotFound(f"There is no dead letter {id_}.", code=NO_SUCH_LETTER, why=why, do=do)
