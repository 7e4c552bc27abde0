"""How many dead letters are open: looked at now and then by the one process that has a topic's first partition.

What was redriven or resolved is not, as the marks in `<app>.dlq` say; nor is what was deleted. Called by `service.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.topics.dead_letter import dead_letter_topic
from headrace.topics.errors import HeadraceError
from headrace.topics.event_wait import set_within
from headrace.topics.log import TopicForbidden, every_partition

if TYPE_CHECKING:
    from headrace.service.shared import Shared
    from headrace.topics.membership import Placement

EVERY_S = 30.0


class OpenLetters:
    """`counts` are open records by dead-letter topic, as last seen; of a topic that cannot be asked now, as seen before."""

    def __init__(self, shared: Shared) -> None:
        self.counts: dict[str, int] = {}
        self._shared = shared
        self._topics: tuple[str, ...] = ()
        self._placed = asyncio.Event()

    def follow(self, placed: Placement) -> None:
        """Look at the topics that belong to these partitions. Never waits."""
        refused = [self._shared.names.refused] if 0 in placed.runs else []
        letters = [dead_letter_topic(at.topic) for at in placed.sources if at.partition == 0]
        self._topics = (*refused, *letters)
        self._placed.set()

    async def run(self) -> None:
        """Look after each placement and every 30 s, for ever."""
        while True:
            await set_within(self._placed, EVERY_S)
            self._placed.clear()
            await self._look()

    async def _look(self) -> None:
        before, found = self.counts, dict[str, int]()
        for topic in self._topics:
            try:
                found[topic] = await self._records(topic)
            except HeadraceError:  # gone, or the broker is away: there are other alarms for that
                if topic in before:
                    found[topic] = before[topic]
        self.counts = found

    async def _records(self, topic: str) -> int:
        log = self._shared.log
        spans = await log.offsets(await every_partition(log, topic))
        if all(span.end == span.start for span in spans.values()):
            return 0
        try:
            book = await self._shared.letters.book()
        except TopicForbidden:  # then everything counts that lies there
            return sum(span.end - span.start for span in spans.values())
        return sum(book.open_in(at, span) for at, span in spans.items())
