"""The router: turns source records into commands. A task for each source partition that is placed here, and one that commits positions.

It never decides anything about runs: identity and deduplication make its repeats harmless, and so may two routers read one partition for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from headrace.service import source_position
from headrace.service.position_writer import PositionWriter
from headrace.service.source import Source
from headrace.service.source_position import SourcePosition
from headrace.topics.back_off import BackOff
from headrace.topics.errors import HeadraceError
from headrace.topics.log import every_partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.shared import Shared
    from headrace.topics.log import TopicPartition

_BACK_OFF_S = (0.1, 5.0)
_EPOCHS_EVERY_S = 10.0
_LOOK_EVERY_S = 0.05  # at positions that another member is about to set or to leave clean
_FIRST_PATIENCE_S = 5.0  # with the member that reads partition 0, which sets a topic's first positions
_CLEAN_PATIENCE_S = 1.0  # with a member that reads a partition still; then it is taken as it is, one record at a time


class Router:
    """`run` is its task; `follow` says what to read. `sources` are those that are read now."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._positions = PositionWriter(shared.log, shared.names.router, lambda: shared.member)
        self._placed: frozenset[TopicPartition] = frozenset()
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._trial = asyncio.Lock()  # held while a record that may end the process is decoded
        self.sources: dict[TopicPartition, Source] = {}
        shared.epochs.changed = self._changed.set

    def follow(self, placed: frozenset[TopicPartition]) -> None:
        """Read these, and no others. Never waits."""
        self._placed = placed
        self._changed.set()

    async def run(self) -> None:
        """Read until cancelled, then say in the positions that nothing was left half done."""
        async with asyncio.TaskGroup() as group:
            positions = group.create_task(self._positions.run())
            try:
                async with asyncio.TaskGroup() as sources:
                    sources.create_task(self._look_for_epochs(), name="epochs")
                    while True:
                        await self._changed.wait()
                        self._changed.clear()
                        await self._close_lost()
                        await self._close_outdated()
                        self._open_gained(sources)
            except asyncio.CancelledError:
                for source in self.sources.values():
                    source.stop_cleanly()
                raise
            finally:
                self._positions.stop()
                await asyncio.wait([positions])

    # --- losing ----------------------------------------------------------------------------------------------------

    async def _close_lost(self) -> None:
        """Stop reading what is placed elsewhere, and commit where: the next member goes on there."""
        lost = [at for at in self.sources if at not in self._placed]
        for at in lost:
            self._tasks[at].cancel()
        if lost:
            await asyncio.wait([self._tasks[at] for at in lost])
        for at in lost:
            del self._tasks[at]
            self.sources.pop(at).stop_cleanly()
            self._positions.leave(at)
            self._shared.stops.pop(at, None)

    async def _close_outdated(self) -> None:
        """Stop reading what is read anew elsewhere in its topic: it is opened again at once, in the newest epoch."""
        outdated = [at for at, source in self.sources.items() if source.epoch < self._shared.epochs.of(at.topic)]
        for at in outdated:
            self._tasks[at].cancel()
        if outdated:
            await asyncio.wait([self._tasks[at] for at in outdated])
        for at in outdated:
            del self._tasks[at], self.sources[at]
            self._positions.forget(at)
            self._shared.stops.pop(at, None)

    async def _look_for_epochs(self) -> None:
        """For a process whose owners cannot tell, because it has none."""
        while True:
            await asyncio.sleep(_EPOCHS_EVERY_S)
            with contextlib.suppress(HeadraceError):
                await self._look(sorted({at.topic for at in self._placed}))

    async def _look(self, topics: Sequence[str]) -> None:
        await self._shared.epochs.look(self._shared.log, self._shared.names.epochs, topics)

    # --- gaining ---------------------------------------------------------------------------------------------------

    def _open_gained(self, group: asyncio.TaskGroup) -> None:
        for topic in sorted({at.topic for at in self._placed if at not in self.sources}):
            opening = self._opening.get(topic)
            if opening is None or opening.done():
                self._opening[topic] = group.create_task(self._open(group, topic), name=f"open-{topic}")

    async def _open(self, group: asyncio.TaskGroup, topic: str) -> None:
        """Begin to read what is placed here of a topic and not read yet. What cannot be had yet is tried again."""
        back_off = BackOff(_BACK_OFF_S)
        while missing := self._not_open(topic):
            try:
                positions = await self._positions_of(topic, missing)
            except HeadraceError:
                await back_off.wait()
                continue
            for at in self._not_open(topic):
                if at in positions:
                    position = self._shared.epochs.corrected(at, positions[at])
                    self.sources[at] = Source(self._shared, at, self._positions, position, self._trial)
                    self._tasks[at] = group.create_task(self.sources[at].run(), name=f"source-{at}")

    def _not_open(self, topic: str) -> list[TopicPartition]:
        return sorted(at for at in self._placed if at.topic == topic and at not in self.sources)

    async def _positions_of(self, topic: str, mine: Sequence[TopicPartition]) -> dict[TopicPartition, SourcePosition]:
        """Where to go on. First positions are committed before the first read, all together.

        A topic without any position was never read: it begins where the settings say, and the member that reads its partition 0 says so for all. Where others
        have one, a partition was added or its position is lost: it begins at the log start, and deduplication sorts it out.
        """
        log = self._shared.log
        every = await every_partition(log, topic)
        found = await self._found(every, mine)
        missing = [at for at in (mine if found else every) if at not in found]
        if missing:
            latest = not found and self._shared.settings.router.start == "latest"
            offsets = await log.offsets(missing)
            first = {at: SourcePosition(each.end if latest else each.start) for at, each in offsets.items()}
            await self._positions.note(first)
            for at in first.keys() - set(mine):
                self._positions.leave(at)
            found |= first
        await self._look([topic])
        mine_found = {at: found[at] for at in mine if at in found}
        self._positions.known(mine_found)
        return mine_found

    async def _found(
        self, every: Sequence[TopicPartition], mine: Sequence[TopicPartition]
    ) -> dict[TopicPartition, SourcePosition]:
        """What is committed, once the members that are about to say more have said it, or for too long have not."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            committed = await self._shared.log.committed(self._shared.names.router, every)
            found = {at: source_position.of(position) for at, position in committed.items()}
            if not found and every[0] not in mine and self._others():
                patience_s = _FIRST_PATIENCE_S
            elif any(at in found and self._is_read_still(found[at]) for at in mine):
                patience_s = _CLEAN_PATIENCE_S
            else:
                return found
            if loop.time() - began > patience_s:
                return found
            await asyncio.sleep(_LOOK_EVERY_S)

    def _others(self) -> bool:
        return any(self._shared.is_other_member(member) for member in self._shared.members)

    def _is_read_still(self, position: SourcePosition) -> bool:
        return not position.clean and self._shared.is_other_member(position.by)
