"""Time limits of attempts: one timer of the event loop for all limits of the same length, for nearly all of them are lifted before they are over.

A fifth of `asyncio.timeout`'s cost, and a limit can say whether it was it that cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.topics.deadlines import Deadlines
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class TimeLimits:
    """One per guard. `clock` gives seconds, for durations; what is due is judged by the loop's own time."""

    __slots__ = ("_lanes", "clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._lanes: dict[int, Deadlines[TimeLimit]] = {}

    def set(
        self, timeout_ms: int, task: asyncio.Task[Any] | None, on_expiry: Callable[[], None] | None = None
    ) -> TimeLimit:
        """Cancel the task after so long, unless the limit is lifted before."""
        if task is None:
            raise HeadraceError("An attempt needs an asyncio task.", code="HR9011")
        lane = self._lanes.get(timeout_ms)
        if lane is None:
            lane = self._lanes[timeout_ms] = Deadlines(
                task.get_loop(), timeout_ms / 1000, TimeLimit.expire, lambda: self._lanes.pop(timeout_ms)
            )
        return TimeLimit(self.clock, lane, task, on_expiry)

    def __len__(self) -> int:
        """How many lengths are in use."""
        return len(self._lanes)


class TimeLimit:
    """The time of one attempt."""

    __slots__ = ("_asked_before", "_began", "_clock", "_lane", "_on_expiry", "_task", "expired")

    def __init__(
        self,
        clock: Callable[[], float],
        lane: Deadlines[TimeLimit],
        task: asyncio.Task[Any],
        on_expiry: Callable[[], None] | None,
    ) -> None:
        self._task = task
        self._asked_before = task.cancelling()
        self._on_expiry = on_expiry
        self._clock = clock
        self._began = clock()
        self._lane = lane
        self.expired = False
        lane.add(self)

    def expire(self) -> None:
        """Its time is over."""
        self.expired = True
        self._task.cancel()
        if self._on_expiry is not None:
            self._on_expiry()

    def owner_asked(self) -> bool:
        """Whether a cancellation is not ours."""
        return self._task.cancelling() - self.expired > self._asked_before

    def elapsed_ms(self) -> float:
        """Since it was set."""
        return (self._clock() - self._began) * 1000

    def lift(self) -> None:
        """The attempt is over."""
        if self.expired:
            self._task.uncancel()
        else:
            self._lane.drop(self)
