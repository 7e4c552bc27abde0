"""Long work in slices: the loop has its turn in between, and of all that is worked on like that one slice comes in each turn.

Called by whoever works through what strangers or years have left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

T = TypeVar("T")
SLICE_S = 0.003
"""The longest stretch of work, if no single piece of it takes longer."""
FIRST_S = 0.0005
"""The same before the first turn is taken: many may begin at once."""
LARGE_BYTES = 64 << 10
"""Of a text that takes a parser long enough to wait for a turn."""


class LoopTurn:
    """`due` says that a slice is over: then `taken` lets the loop have its turn."""

    def __init__(self) -> None:
        self._ends = perf_counter() + FIRST_S

    @property
    def due(self) -> bool:
        """Whether it is the loop's turn."""
        return perf_counter() > self._ends

    async def taken(self) -> None:
        """Let others work, and wait behind those who wait for the same."""
        loop = asyncio.get_running_loop()
        line = _lines.get(loop)
        if line is None:
            line = _lines[loop] = _Line()
        await line.end()
        self._ends = perf_counter() + SLICE_S


class _Line:
    """Who waits to go on, in order: one in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def end(self) -> asyncio.Future[None]:
        """Stand at the end; done when it is one's turn."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append(mine)
        if len(self._waiting) == 1:
            loop.call_soon(self._next)
        return mine

    def _next(self) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                break
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()


async def in_turns(pieces: Iterable[T]) -> AsyncGenerator[T]:
    """Each piece, with the loop's turns in between."""
    turn = LoopTurn()
    for piece in pieces:
        yield piece
        if turn.due:
            await turn.taken()
