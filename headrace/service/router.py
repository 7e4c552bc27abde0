"""The router: turns source records into commands. A task for each source partition, and one that commits positions.

It never decides anything about runs: identity and deduplication make its repeats harmless.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.service import source_position
from headrace.service.position_writer import PositionWriter
from headrace.service.source import Source
from headrace.service.source_position import SourcePosition
from headrace.topics.errors import HeadraceError
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.shared import Shared

_LOOK_EVERY_S = 30.0  # for partitions that were added to a topic
_BACK_OFF_S = (0.1, 5.0)


class Router:
    """`run` is its task; `sources` grows when a topic does."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._positions = PositionWriter(shared.log, shared.names.router)
        self.sources: dict[TopicPartition, Source] = {}

    async def run(self) -> None:
        """Read all source topics until cancelled, then say in the positions that nothing was left half done."""
        async with asyncio.TaskGroup() as group:
            positions = group.create_task(self._positions.run())
            try:
                async with asyncio.TaskGroup() as sources:
                    await self._open_for_ever(sources)
            except asyncio.CancelledError:
                for source in self.sources.values():
                    source.stop_cleanly()
                raise
            finally:
                self._positions.stop()
                await asyncio.wait([positions])

    async def _open_for_ever(self, group: asyncio.TaskGroup) -> None:
        wait_s, longest = _BACK_OFF_S
        while True:
            found = [await self._open(group, topic) for topic in self._shared.matcher.topics]
            if all(found):
                wait_s = _BACK_OFF_S[0]
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                await asyncio.sleep(wait_s)
                wait_s = min(longest, wait_s * 2)

    async def _open(self, group: asyncio.TaskGroup, topic: str) -> bool:
        """Begin to read what is not read yet; False if the broker does not say."""
        try:
            partitions = [TopicPartition(topic, index) for index in range(await self._shared.log.partitions(topic))]
            if all(at in self.sources for at in partitions):
                return True
            positions = await self._positions_of(partitions)
        except HeadraceError:
            return False
        for at in partitions:
            if at not in self.sources:
                self.sources[at] = Source(self._shared, at, self._positions, positions[at])
                group.create_task(self.sources[at].run())
        return True

    async def _positions_of(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, SourcePosition]:
        """Where to go on with one topic. First positions are committed before the first read, all together.

        A topic without any position was never read: it begins where the settings say. Where others have one, a partition was added or its position is lost:
        it begins at the log start, and deduplication sorts it out.
        """
        log, names = self._shared.log, self._shared.names
        found = {
            at: source_position.of(position) for at, position in (await log.committed(names.router, partitions)).items()
        }
        missing = [at for at in partitions if at not in found]
        latest = not found and self._shared.settings.router.start == "latest"
        self._positions.known({at: position for at, position in found.items() if at not in self.sources})
        if not missing:
            return found
        offsets = await log.offsets(missing)
        first = {at: SourcePosition(each.end if latest else each.start) for at, each in offsets.items()}
        await self._positions.note(first)
        return found | first
