"""What is due some fixed time after it was added, unless it is dropped before, as nearly all of it is: one timer of the event loop for everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

K = TypeVar("K")


class Deadlines(Generic[K]):
    """Items of one length, oldest first: that is the order in which they are due.

    `due` is called with each whose time is over, on the loop. `empty` is called when the timer finds none left.
    """

    __slots__ = ("_due", "_empty", "_items", "_loop", "_seconds", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        due: Callable[[K], None],
        empty: Callable[[], object] = lambda: None,
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._due = due
        self._empty = empty
        self._items: dict[K, float] = {}  # when each is due, by the loop's time
        self._timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._items))

    def add(self, item: K) -> None:
        """Its time begins now."""
        due_s = self._items[item] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._ring)

    def drop(self, item: K) -> None:
        """Forget it, if it is there."""
        self._items.pop(item, None)

    def stop(self) -> None:
        """Ring no more. What is there stays, for whoever ends it."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        now_s = self._loop.time()
        try:
            while self._items:
                item, due_s = next(iter(self._items.items()))
                if due_s > now_s:
                    break
                del self._items[item]
                self._due(item)
        finally:  # what was added meanwhile found a timer, and set none
            self._timer = None
            for due_s in self._items.values():
                self._timer = self._loop.call_at(due_s, self._ring)
                break
            else:
                self._empty()
