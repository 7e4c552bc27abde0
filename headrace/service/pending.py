"""What was made of one chunk of a source and is on its way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.topics.errors import HeadraceError


class Pending:
    """`add` before each record that is queued, `written` when its fate is known, `all_out` once nothing more is added."""

    __slots__ = ("_done", "_left", "error")

    def __init__(self) -> None:
        self._left = 1  # until `all_out`
        self._done = asyncio.Event()
        self.error: HeadraceError | None = None  # the first failure

    def add(self) -> None:
        self._left += 1

    def written(self, _offset: int, error: HeadraceError | None) -> None:
        if error is not None and self.error is None:
            self.error = error
        self._left -= 1
        if not self._left:
            self._done.set()

    async def all_out(self) -> None:
        """Wait for every acknowledgement; raises the first failure."""
        self.written(-1, None)
        await self._done.wait()
        if self.error is not None:
            raise self.error
