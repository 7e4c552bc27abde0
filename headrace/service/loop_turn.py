"""Long work in slices: the loop has its turn in between. Called by whoever works through what strangers or years have left."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

T = TypeVar("T")
SLICE_S = 0.003
"""The longest stretch of work, if no single piece of it takes longer."""


class LoopTurn:
    """`due` says that a slice is over: then `taken` lets the loop have its turn."""

    def __init__(self) -> None:
        self._ends = perf_counter() + SLICE_S

    @property
    def due(self) -> bool:
        """Whether it is the loop's turn."""
        return perf_counter() > self._ends

    async def taken(self) -> None:
        """Let others work."""
        await asyncio.sleep(0)
        self._ends = perf_counter() + SLICE_S


async def in_turns(pieces: Iterable[T]) -> AsyncGenerator[T]:
    """Each piece, with the loop's turns in between."""
    turn = LoopTurn()
    for piece in pieces:
        yield piece
        if turn.due:
            await turn.taken()
