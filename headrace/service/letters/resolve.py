"""Dead letters that need nothing more: marked as resolved, and deleted as far as everything before them is.

A topic can only be trimmed from its start on: a resolved letter behind one that is not lies there until that one is resolved, too, and counts no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.letters.book import LetterState
from headrace.service.letters.redrive import CHUNK, mark
from headrace.topics.errors import HeadraceError
from headrace.topics.letter_mark import MarkKind
from headrace.topics.log import OffsetOutOfRange, TopicPartition, every_partition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from headrace.service.letters.letters import Letters
    from headrace.service.letters.redrive import By


class Resolved(msgspec.Struct, kw_only=True):
    """Of many. `skipped`: they were resolved before. `deleted`: how many of these and of earlier ones; `not_deleted`: why, if the broker did not let us."""

    selected: int
    resolved: int = 0
    skipped: int = 0
    deleted: int = 0
    not_deleted: str = ""


async def resolve(
    letters: Letters, selected: Mapping[TopicPartition, Sequence[int]], by: By
) -> AsyncGenerator[Resolved]:
    """Say of these letters that they need nothing more; what has come of it so far, after each chunk. The last time, they are deleted."""
    done = Resolved(selected=sum(map(len, selected.values())))
    for at, offsets in selected.items():
        for first in range(0, len(offsets), CHUNK):
            chunk = offsets[first : first + CHUNK]
            book = await letters.book()
            wanted = [each for each in chunk if book.of(at, each).state is not LetterState.RESOLVED]
            await mark(letters, MarkKind.RESOLVED, [(at, offset, 0) for offset in wanted], by)
            done.resolved += len(wanted)
            done.skipped += len(chunk) - len(wanted)
            yield done
    try:
        done.deleted = await _trim(letters, selected)
    except HeadraceError as error:  # they are resolved all the same, and the next one tries again
        done.not_deleted = error.message
    yield done


async def _trim(letters: Letters, places: Mapping[TopicPartition, Sequence[int]]) -> int:
    """Delete what is resolved up to the first letter that is not; then the marks that say nothing any more. How many letters."""
    deleted = 0
    for at in places:
        if at.topic != letters.names.refused:
            deleted += await _trim_one(letters, at, {})
    starts: dict[TopicPartition, int] = {}
    for topic in await letters.topics():
        if topic != letters.names.refused:
            starts |= {
                at: offsets.start
                for at, offsets in (await letters.log.offsets(await every_partition(letters.log, topic))).items()
            }
    for at in await every_partition(letters.log, letters.names.refused):
        offsets = (await letters.log.offsets([at]))[at]
        # of its own letters a mark is needed until they are gone: those behind it cannot be before
        deleted += await _trim_one(letters, at, starts | {at: offsets.start})
    return deleted


async def _trim_one(letters: Letters, at: TopicPartition, starts: Mapping[TopicPartition, int]) -> int:
    book = await letters.book()
    offsets = (await letters.log.offsets([at]))[at]
    before = book.resolved_up_to(at, offsets, starts)
    if before <= offsets.start:
        return 0
    try:
        await letters.log.trim(at, before)
    except OffsetOutOfRange:  # somebody else was faster, and more came
        return 0
    return before - offsets.start - book.forget_below(at, before)
