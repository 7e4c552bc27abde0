"""The newest placement and who waits for it: what all kinds of `Membership` have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.topics.membership import Placement


class NewestPlacement:
    """`tell` never waits; iterating gives the newest one that was not given yet, for ever."""

    def __init__(self) -> None:
        self.newest: Placement | None = None
        self._given: Placement | None = None
        self._failure: Exception | None = None
        self._told = asyncio.Event()

    def tell(self, placement: Placement) -> None:
        """There is a new placement."""
        self.newest = placement
        self._told.set()

    def fail(self, error: Exception) -> None:
        """There will be none: whoever iterates gets the error."""
        self._failure = error
        self._told.set()

    async def each(self) -> AsyncIterator[Placement]:
        """One iterator at a time."""
        while True:
            await self._told.wait()
            self._told.clear()
            if self._failure is not None:
                raise self._failure
            if self.newest is not None and self.newest is not self._given:
                self._given = self.newest
                yield self.newest
