"""What the rest of a service knows of its history, without SQL: who feeds it follows the placements, and the trim of the run log waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from headrace.service.run_view.queries import RunQueries


class HistoryLag(msgspec.Struct, frozen=True):
    """How far the history is behind the run log, over the partitions that are fed here. `seconds`: age of the oldest record that it lacks."""

    records: int = 0
    seconds: float = 0.0


class HistoryLink(Protocol):
    """Feeds the history of the partitions that are placed here, while `run` runs. Whatever happens to the database, nothing of this raises or waits for it."""

    moved: asyncio.Event
    """Set when a `floor` has risen; whoever waits for it clears it."""

    @property
    def queries(self) -> RunQueries:
        """Answers out of the database."""
        ...

    def follow(self, partitions: frozenset[int]) -> None:
        """These are placed here now."""
        ...

    def floor(self, partition: int) -> int | None:
        """The run log must be kept from this offset on; None: that is not known yet, so all of it."""
        ...

    @property
    def unfed(self) -> Collection[str]:
        """What cannot be fed until somebody acts: partitions, or the whole."""
        ...

    def lag(self) -> HistoryLag:
        """Now, from what is known here."""
        ...

    async def run(self, replayed: Callable[[], bool]) -> None:
        """Feed for ever. Begins with a partition once owners are not `replayed` any more: they come first."""
        ...

    async def flushed(self) -> None:
        """Return when what was in the run log at the call is in the history, or nobody feeds."""
        ...
