"""Back-pressure across processes: owners say in their committed positions how much waits for room, and routers everywhere pause the sources that feed it.

What one process has too much of its own routers know at once, from admission. The others look here, about once a second: a source goes on for that long, and
for what is on its way. Everything here is a hint: nothing is lost without it, memory is bounded by what is left in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from headrace.service import owner_position
from headrace.topics.errors import HeadraceError
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from headrace.service.ownership import Ownership
    from headrace.service.shared import Shared

EVERY_S = 1.0


class BackPressure:
    """`run` is its task."""

    def __init__(self, shared: Shared, ownership: Ownership) -> None:
        self._shared = shared
        self._ownership = ownership

    async def run(self) -> None:
        """Publish and look, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.publish()
            with contextlib.suppress(HeadraceError):
                await self.look()

    def publish(self) -> None:
        """Say for each partition of ours what waits there, while it is too much; else nothing."""
        shared = self._shared
        full = shared.admission.full
        for owner in self._ownership.owners:
            shared.owner_positions.backlog(owner.at, owner.runs.starts.backlog() if full else {})

    async def look(self) -> None:
        """See which sources feed an owner elsewhere that has too much. Raises what the log raises."""
        shared = self._shared
        ours = {owner.at.partition for owner in self._ownership.owners}
        others = [
            TopicPartition(shared.names.runs, number) for number in range(shared.partitions) if number not in ours
        ]
        topics: set[str] = set()
        if others:
            found = await shared.log.committed(shared.names.owners, others)
            for position in found.values():
                topics.update(topic for topic, size in owner_position.of(position).backlog.items() if size)
        shared.admission.pause_elsewhere(frozenset(topics))
