"""Time limits of attempts: one timer of the event loop for all limits of the same length, for nearly all of them are lifted before they are over.

A fifth of `asyncio.timeout`'s cost, and a limit can say whether it was it that cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class TimeLimits:
    """One per guard. `clock` gives seconds, for durations; what is due is judged by the loop's own time."""

    __slots__ = ("_lanes", "clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._lanes: dict[int, _Lane] = {}

    def set(
        self, timeout_ms: int, task: asyncio.Task[Any] | None, on_expiry: Callable[[], None] | None = None
    ) -> TimeLimit:
        """Cancel the task after so long, unless the limit is lifted before."""
        if task is None:
            raise HeadraceError("An attempt needs an asyncio task.", code="HR9011")
        lane = self._lanes.get(timeout_ms)
        if lane is None:
            lane = self._lanes[timeout_ms] = _Lane(self._lanes, timeout_ms, task.get_loop())
        return TimeLimit(self.clock, lane, task, on_expiry)

    def __len__(self) -> int:
        """How many lengths are in use."""
        return len(self._lanes)


class TimeLimit:
    """The time of one attempt."""

    __slots__ = ("_asked_before", "_began", "_clock", "_lane", "_on_expiry", "_task", "due_s", "expired")

    def __init__(
        self,
        clock: Callable[[], float],
        lane: _Lane,
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
        self.due_s = 0.0
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


class _Lane:
    """Limits of one length, oldest first: that is the order in which they are due. It leaves the lanes when its timer finds none."""

    __slots__ = ("_lanes", "_limits", "_loop", "_timeout_ms", "_timer")

    def __init__(self, lanes: dict[int, _Lane], timeout_ms: int, loop: asyncio.AbstractEventLoop) -> None:
        self._lanes = lanes
        self._timeout_ms = timeout_ms
        self._loop = loop
        self._limits: dict[TimeLimit, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, limit: TimeLimit) -> None:
        limit.due_s = self._loop.time() + self._timeout_ms / 1000
        self._limits[limit] = None
        if self._timer is None:
            self._timer = self._loop.call_at(limit.due_s, self._ring)

    def drop(self, limit: TimeLimit) -> None:
        self._limits.pop(limit, None)

    def _ring(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while self._limits:
            limit = next(iter(self._limits))
            if limit.due_s > now_s:
                self._timer = self._loop.call_at(limit.due_s, self._ring)
                return
            del self._limits[limit]
            limit.expire()
        if self._timer is None:  # what expired may have set a new one
            del self._lanes[self._timeout_ms]
