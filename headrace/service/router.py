"""The router: turns source records into commands. A task for each source partition, and one that commits positions.

It never decides anything about runs: identity and deduplication make its repeats harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from headrace.service.source import Source
from headrace.topics.errors import HeadraceError
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from headrace.service.shared import Shared

_COMMIT_EVERY_S = 0.25
_RECOMMIT_EVERY_S = 86_400.0  # a position that nobody commits for seven days is gone
_LOOK_EVERY_S = 30.0  # for partitions that were added to a topic


class Router:
    """`run` is its task; `sources` grows when a topic does."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.sources: dict[TopicPartition, Source] = {}

    async def run(self) -> None:
        """Read all source topics until cancelled, then say in the positions that nothing was left half done."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._commit_for_ever())
                while True:
                    await self._open(group)
                    await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            for source in self.sources.values():
                source.stop_cleanly()
            with contextlib.suppress(HeadraceError):
                await asyncio.shield(self._commit())

    async def started(self) -> None:
        """Return when every source has its position."""
        for source in list(self.sources.values()):
            await source.started.wait()

    async def _open(self, group: asyncio.TaskGroup) -> None:
        for topic in self._shared.matcher.topics:
            with contextlib.suppress(HeadraceError):
                for index in range(await self._shared.log.partitions(topic)):
                    at = TopicPartition(topic, index)
                    if at not in self.sources:
                        source = self.sources[at] = Source(self._shared, at)
                        group.create_task(source.run())

    async def _commit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY_S)
            with contextlib.suppress(HeadraceError):
                await self._commit()

    async def _commit(self) -> None:
        moved = {at: position for at, source in self.sources.items() if (position := source.to_commit()) is not None}
        if moved:
            await self._shared.log.commit(
                self._shared.names.router, {at: position.position() for at, position in moved.items()}
            )
            for at, position in moved.items():
                self.sources[at].committed = position
