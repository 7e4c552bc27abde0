"""Membership where nobody else can be: the one member gets everything, and what is added later. Used by the embedded log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from headrace.topics.back_off import BackOff
from headrace.topics.errors import HeadraceError
from headrace.topics.log import TopicPartition
from headrace.topics.membership import Placement
from headrace.topics.newest_placement import NewestPlacement

LOOK_EVERY_S = 30.0  # for partitions that were added to a source topic
_BACK_OFF_S = (0.1, 5.0)  # while a source topic is not there


class EmbeddedMembership:
    """`run` is its task: looks at the source topics now and then."""

    def __init__(
        self, *, partitions: int, sources: Sequence[str], count: Callable[[str], Awaitable[int]], member: str
    ) -> None:
        self.member = member
        self._partitions = partitions
        self._sources = tuple(sources)
        self._count = count
        self._newest = NewestPlacement()
        self._retired = False
        self._generation = 0
        self._told: tuple[frozenset[int], frozenset[TopicPartition]] | None = None

    def placements(self) -> AsyncIterator[Placement]:
        return self._newest.each()

    def look(self) -> None:
        """Nobody comes or goes."""

    async def retire(self) -> None:
        self._retired = True
        self._tell(frozenset())

    async def leave(self) -> None:
        """There is no group."""

    async def leave_for(self, member: str) -> None:
        """Nor anybody else in it."""

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            await self._look()
        except Exception as error:  # noqa: BLE001 - whatever it was, who waits for a placement must hear of it
            self._newest.fail(error)

    async def _look(self) -> None:
        found: dict[str, int] = {}
        back_off = BackOff(_BACK_OFF_S)
        while True:
            missing = 0
            for topic in self._sources:
                try:
                    found[topic] = await self._count(topic)
                except HeadraceError:
                    missing += 1
            self._tell(
                frozenset(TopicPartition(topic, number) for topic, count in found.items() for number in range(count))
            )
            if missing:
                await back_off.wait()
            else:
                await asyncio.sleep(LOOK_EVERY_S)
                back_off.reset()

    def _tell(self, sources: frozenset[TopicPartition]) -> None:
        runs = frozenset(range(0 if self._retired else self._partitions))
        told = (runs, frozenset[TopicPartition]() if self._retired else sources)
        if told != self._told:
            self._told = told
            self._generation += 1
            self._newest.tell(Placement(self._generation, *told, members=(self.member,)))
