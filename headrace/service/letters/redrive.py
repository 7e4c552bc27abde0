"""Dead letters sent to their topics again.

For each letter: a mark that it is about to be sent, the record, a mark that it is there. Who dies in between leaves it as `redriving`, and the next one sends
the same record again; routers drop the copy, as long as they know the first one: for a week.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgspec

from headrace.service.letters.book import LetterState
from headrace.service.letters.view import letter_id
from headrace.service.request_error import Conflict
from headrace.topics.dead_letter import Kept, Stage, dead_letter_topic
from headrace.topics.errors import Rejected
from headrace.topics.letter_mark import LetterMark, MarkKind, mark_record
from headrace.topics.local_clock import LocalClock
from headrace.topics.log import (
    AppendFailed,
    LogUnavailable,
    NewRecord,
    Offsets,
    TopicMissing,
    TopicPartition,
    partition_missing,
)
from headrace.topics.partition_hash import kafka_partition_of
from headrace.topics.redrive import redrive, redrive_count

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from headrace.service.letters.book import Handled
    from headrace.service.letters.letters import Found, Letters

REDRIVEN_BEFORE = "HR3302"
NOT_KEPT = "HR3303"
UNSURE = "HR3304"
NOT_OURS = "HR3305"
UNSURE_MS = 6 * 86_400_000  # a day less than copies are known, for routers that are behind
_TRIES = 5
_WAIT_S = 0.5
CHUNK = 200  # letters between two pairs of marks
_CHUNK_BYTES = 4 << 20


class By(msgspec.Struct, frozen=True):
    """Who does it, and why, for people."""

    name: str
    note: str = ""


class Redrive(msgspec.Struct, frozen=True):
    """A letter that lies in its topic again."""

    id: str
    to: str  # topic/partition/offset
    count: int


class Progress(msgspec.Struct, kw_only=True):
    """Of many. `skipped`: somebody else was faster, or they cannot be redriven; `refused`: their topic does not take them."""

    selected: int
    redriven: int = 0
    skipped: int = 0
    refused: int = 0

    @property
    def done(self) -> int:
        """How many need no more work."""
        return self.redriven + self.skipped + self.refused


@dataclass(frozen=True)
class _Sending:
    """A letter on its way."""

    found: Found
    count: int
    to: TopicPartition
    record: NewRecord


async def redrive_one(letters: Letters, id_: str, by: By, *, again: bool = False) -> Redrive:
    """Send one letter again. Raises `NotFound`, `Conflict`, `TopicMissing`, `AppendRefused`."""
    found = await letters.one(id_)
    sending = _prepared(letters, found, (await letters.book()).of(found.at, found.record.offset), again=again)
    if isinstance(sending, Conflict):
        raise sending
    sent = await _sent(letters, [await _placed(letters, sending)], by)
    (result,) = sent.values()
    if isinstance(result, Rejected):
        raise result
    return Redrive(found.id, result, sending.count)


async def redrive_many(
    letters: Letters,
    selected: Mapping[TopicPartition, Sequence[int]],
    by: By,
    *,
    rate: float = 0.0,
    again: bool = False,
) -> AsyncGenerator[Progress]:
    """Send many again, partition by partition, in order; what has come of it so far, after each chunk. `rate`: letters a second, 0: as fast as it goes."""
    progress = Progress(selected=sum(map(len, selected.values())))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for at, offsets in selected.items():
        async for chunk in _chunks(letters, at, offsets, max(1, min(CHUNK, round(rate))) if rate else CHUNK):
            book = await letters.book()
            sendings: list[_Sending] = []
            for found in chunk.found:
                sending = _prepared(letters, found, book.of(at, found.record.offset), again=again)
                if isinstance(sending, _Sending):
                    sendings.append(await _placed(letters, sending))
            results = await _sent(letters, sendings, by)
            refused = sum(isinstance(result, Rejected) for result in results.values())
            progress.refused += refused
            progress.redriven += len(results) - refused
            progress.skipped += chunk.wanted - len(results)
            yield progress
            if rate and progress.done < progress.selected:
                await asyncio.sleep(max(0.0, began + progress.done / rate - loop.time()))


# --- which ------------------------------------------------------------------------------------------------------------


class _Chunk(NamedTuple):
    found: list[Found]
    wanted: int


async def _chunks(letters: Letters, at: TopicPartition, offsets: Sequence[int], size: int) -> AsyncGenerator[_Chunk]:
    """Letters at these offsets, some at a time. What was deleted meanwhile is wanted and not found."""
    wanted = frozenset(offsets)
    found: list[Found] = []
    passed = size_bytes = 0
    left = iter(offsets)
    async for each in letters.letters(at, Offsets(offsets[0], offsets[-1] + 1)):
        if each.record.offset not in wanted:
            continue
        passed += 1
        while next(left) != each.record.offset:
            passed += 1
        found.append(each)
        size_bytes += len(each.record.value or b"")
        if len(found) >= size or size_bytes >= _CHUNK_BYTES:
            yield _Chunk(found, passed)
            found, passed, size_bytes = [], 0, 0
    passed += sum(1 for _ in left)
    if passed:
        yield _Chunk(found, passed)


def _prepared(letters: Letters, found: Found, handled: Handled, *, again: bool) -> _Sending | Conflict:
    """What to send, with the partition still open; or why not."""
    if (conflict := _why_never(letters, found) or (None if again else _why_not_again(found, handled))) is not None:
        return conflict
    letter = found.letter
    the_same = handled.state is LetterState.REDRIVING and not again
    count = handled.count if the_same else max(handled.count, redrive_count(letter.headers)) + 1
    record = redrive(letter, found.at, found.record.offset, app=letters.names.app, count=count)
    return _Sending(found, count, TopicPartition(letter.topic, letter.partition), record)


def _why_never(letters: Letters, found: Found) -> Conflict | None:
    letter, names = found.letter, letters.names
    if letter.app not in {None, names.app}:
        return Conflict(
            f"{found.id} is a dead letter of the app {letter.app}.",
            code=NOT_OURS,
            why="Only the routers of that app would take it.",
            do=f"Redrive it with --app-name {letter.app} and the settings of that app.",
        )
    misplaced = letter.stage is not Stage.EMIT and dead_letter_topic(letter.topic) != found.at.topic
    if misplaced or letter.topic in {names.runs, names.refused, names.audit}:
        return Conflict(
            f"{found.id} cannot be sent to {letter.topic}.",
            code=NOT_OURS,
            why="A record may go back to the topic that its dead letters belong to, and never to a topic of Headrace's own.",
            do="Mend what emits there, or produces such letters; then resolve it.",
        )
    if letter.kept is not Kept.ALL:
        return Conflict(
            f"{found.id} has no value any more: it was kept as {letter.kept} only.",
            code=NOT_KEPT,
            why="It was too large for its topic, or could not be unpacked.",
            do="Have its producer send it anew, then resolve it; `headrace dlq get` shows what is known.",
        )
    return None


def _why_not_again(found: Found, handled: Handled) -> Conflict | None:
    done = {LetterState.REDRIVEN: "redriven", LetterState.RESOLVED: "resolved"}.get(handled.state)
    if done is not None:
        return Conflict(
            f"{found.id} was {done}{f' by {handled.by}' if handled.by else ''}.",
            code=REDRIVEN_BEFORE,
            why="Sent twice it would start its runs twice.",
            do="Look what has come of it first; with --again it is sent once more, as a new one.",
        )
    if handled.state is LetterState.REDRIVING and LocalClock().local_ms() - handled.at_ms > UNSURE_MS:
        return Conflict(
            f"{found.id} was about to be redriven more than six days ago, and nobody knows whether it was.",
            code=UNSURE,
            why="Copies are known for a week: if the first one is there, a second one would start its runs again.",
            do=f"Look into {found.letter.topic} for a record with the header headrace-redrive-of: {found.id}. "
            "If there is none, redrive with --again; else resolve it.",
        )
    return None


async def _placed(letters: Letters, sending: _Sending) -> _Sending:
    """With the partition that it goes to."""
    letter = sending.found.letter
    count = await letters.log.partitions(letter.topic)
    if letter.stage is Stage.EMIT:  # where its first try would have gone
        ce_id = dict(letter.headers).get("ce_id", b"")
        number = kafka_partition_of(letter.key, count) if letter.key is not None else crc32(ce_id) % count
        return replace(sending, to=TopicPartition(letter.topic, number))
    if letter.partition >= count:
        raise partition_missing(sending.to, count)
    return sending


# --- sending ----------------------------------------------------------------------------------------------------------


async def _sent(letters: Letters, sendings: Sequence[_Sending], by: By) -> dict[str, str | Rejected]:
    """Where each one lies now, or why its topic does not take it."""
    if not sendings:
        return {}
    await mark(letters, MarkKind.REDRIVING, _entries(sendings), by)
    results: dict[str, str | Rejected] = {}
    for to, share in _by_target(sendings).items():
        results |= await _published(letters, to, share)
    refused = [each for each in sendings if isinstance(results[each.found.id], Rejected)]
    await mark(letters, MarkKind.REFUSED, _entries(refused), by)
    sent = [each for each in sendings if not isinstance(results[each.found.id], Rejected)]
    await mark(letters, MarkKind.REDRIVEN, _entries(sent), by)
    return results


def _by_target(sendings: Iterable[_Sending]) -> dict[TopicPartition, list[_Sending]]:
    targets: dict[TopicPartition, list[_Sending]] = {}
    for each in sendings:
        targets.setdefault(each.to, []).append(each)
    return targets


async def _published(letters: Letters, to: TopicPartition, share: Sequence[_Sending]) -> dict[str, str | Rejected]:
    """All together; one by one if they are refused, for one may spoil the others."""
    try:
        base = await published(letters, to, [each.record for each in share])
    except TopicMissing:
        raise
    except Rejected as error:
        if len(share) == 1:
            return {share[0].found.id: error}
        results: dict[str, str | Rejected] = {}
        for each in share:
            results |= await _published(letters, to, [each])
        return results
    return {each.found.id: letter_id(to, base + index) for index, each in enumerate(share)}


async def published(letters: Letters, at: TopicPartition, records: Sequence[NewRecord]) -> int:
    """The offset of the first, once all are there; sent again if nobody knows whether they are."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return (await letters.log.publish(at, records)).base_offset
        except (AppendFailed, LogUnavailable):
            if not tries_left:
                raise
            await asyncio.sleep(_WAIT_S)
    raise AssertionError("the last try returns or raises")


def _entries(sendings: Iterable[_Sending]) -> list[tuple[TopicPartition, int, int]]:
    return [(each.found.at, each.found.record.offset, each.count) for each in sendings]


async def mark(letters: Letters, kind: MarkKind, entries: Iterable[tuple[TopicPartition, int, int]], by: By) -> None:
    """Say what was done: letters by partition and offset, with the count of their redrive, neighbours together."""
    marks: list[LetterMark] = []
    for at, offset, count in sorted(entries):
        last = marks[-1] if marks else None
        if last is not None and (last.topic, last.partition, last.count) == (*at, count) and last.last + 1 == offset:
            marks[-1] = msgspec.structs.replace(last, last=offset)
            continue
        marks.append(
            LetterMark(
                kind=kind,
                topic=at.topic,
                partition=at.partition,
                first=offset,
                last=offset,
                count=count,
                by=by.name,
                note=by.note,
            )
        )
    if marks:
        await published(letters, TopicPartition(letters.names.refused, 0), [mark_record(each) for each in marks])
