"""The book: what was done about each dead letter, as the marks say. Pure: `letters.py` reads them and notes them here.

    open ──redriving──► redriving ──redriven──► redriven ──resolved──► resolved
      ▲                     │  ▲                  │  ▲                     │
      └──────refused────────┘  └────redriving─────┘  └──redriving ... ─────┘   (`--again`)

A letter that is `redriving` may have been sent or not: who sent it died before it said so. It is open until somebody redrives it again, with the same count:
should it be there already, the second one is dropped as a copy.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from headrace.service.letters.offset_map import OffsetMap
from headrace.topics.letter_mark import LetterMark, MarkKind
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.topics.log import Offsets


class LetterState(StrEnum):
    """Of one dead letter."""

    OPEN = "open"
    REDRIVING = "redriving"
    REDRIVEN = "redriven"
    RESOLVED = "resolved"


OPEN_STATES = frozenset({LetterState.OPEN, LetterState.REDRIVING})
NOT_RESOLVED = frozenset(LetterState) - {LetterState.RESOLVED}
STATE_WORDS = {
    "open": OPEN_STATES,
    **{state.value: frozenset({state}) for state in LetterState if state is not LetterState.OPEN},
    "all": frozenset(LetterState),
}
"""What people may ask for, and which states it means."""


class Handled(msgspec.Struct, frozen=True, gc=False):
    """What is known of a letter. `count`: of its newest redrive, sent or not; `sent`: of the newest one that is known to be there; `redrives` of these."""

    state: LetterState = LetterState.OPEN
    count: int = 0
    sent: int = 0
    redrives: int = 0
    at_ms: int = 0
    by: str = ""
    note: str = ""


UNTOUCHED = Handled()


class Book:
    """Marks noted so far. `refused` is the topic that they lie in."""

    def __init__(self, refused: str) -> None:
        self._refused = refused
        self._handled: dict[TopicPartition, OffsetMap[Handled]] = {}
        self._marks: dict[TopicPartition, dict[int, LetterMark]] = {}  # where they lie

    def note(self, at: TopicPartition, offset: int, at_ms: int, mark: LetterMark) -> None:
        """A mark that lies there."""
        self._marks.setdefault(at, {})[offset] = mark
        # itself no letter that anybody has to see to
        self._of(at).change(offset, offset, lambda _: Handled(state=LetterState.RESOLVED))
        where = TopicPartition(mark.topic, mark.partition)
        self._of(where).change(mark.first, mark.last, lambda before: _after(before or UNTOUCHED, mark, at_ms))

    def of(self, at: TopicPartition, offset: int) -> Handled:
        """What was done about a letter."""
        known = self._handled.get(at)
        return (None if known is None else known.get(offset)) or UNTOUCHED

    def open_in(self, at: TopicPartition, offsets: Offsets) -> int:
        """How many records of a dead-letter partition are open."""
        known = self._handled.get(at)
        count = offsets.end - offsets.start
        if known is None:
            return count
        spans = known.spans(offsets.start, offsets.end)
        return count - sum(last - first + 1 for first, last, each in spans if each.state not in OPEN_STATES)

    def resolved_up_to(self, at: TopicPartition, offsets: Offsets, starts: Mapping[TopicPartition, int]) -> int:
        """Everything below may be deleted. `starts` are the first offsets of dead-letter partitions: marks of letters that are there are kept."""
        known = self._handled.get(at)
        upto = offsets.start
        if known is None:
            return upto
        for first, last, each in known.spans(offsets.start, offsets.end):
            if first > upto or each.state is not LetterState.RESOLVED:
                break
            upto = last + 1
        for offset, mark in self._marks.get(at, {}).items():
            start = starts.get(TopicPartition(mark.topic, mark.partition))
            if offsets.start <= offset < upto and start is not None and mark.last >= start:
                return offset
        return upto

    def forget_below(self, at: TopicPartition, start: int) -> int:
        """What lay before it is deleted. How many marks are among it."""
        if (known := self._handled.get(at)) is not None:
            known.forget_below(start)
        marks = self._marks.get(at)
        gone = [] if marks is None else [offset for offset in marks if offset < start]
        for offset in gone:
            del self._marks[at][offset]
        return len(gone)

    def _of(self, at: TopicPartition) -> OffsetMap[Handled]:
        return self._handled.setdefault(at, OffsetMap[Handled]())


def _after(before: Handled, mark: LetterMark, at_ms: int) -> Handled:
    redrives, sent, state = before.redrives, before.sent, before.state
    match mark.kind:
        case MarkKind.REDRIVING:
            state = LetterState.REDRIVING
        case MarkKind.REDRIVEN:
            state = LetterState.REDRIVEN
            redrives += mark.count > sent
            sent = max(sent, mark.count)
        case MarkKind.REFUSED:
            state = LetterState.REDRIVEN if redrives else LetterState.OPEN
        case MarkKind.RESOLVED:
            state = LetterState.RESOLVED
        case _:
            return before  # of a later version
    count = max(before.count, mark.count)
    return Handled(state=state, count=count, sent=sent, redrives=redrives, at_ms=at_ms, by=mark.by, note=mark.note)
