"""Timers of this process, in due order: sleeps, retry waits, run timeouts, breakers. One alarm of the event loop stands for all of them.

In memory only: what is due is derived from the log, and a timer counts when its outcome has been read back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.service.log_clock import LogClock

_LATE_MAX_S = 60.0  # the alarm is set at most this far ahead: a machine that was asleep and appended nothing since is noticed then
_SLICE_S = 0.005  # the longest stretch of ringing before the loop gets its turn: a hundred thousand may be due at once

Ring = Callable[[Any, int], None]
"""Called with the key and the due time. One bound method serves many timers: a sleeping run has no closure of its own."""

_Armed = tuple[int, int, Hashable, Ring]


class Timers:
    """`arm` replaces what has the same key. Times are milliseconds of the log's clock."""

    def __init__(self, clock: LogClock) -> None:
        self._clock = clock
        self._heap: list[_Armed] = []
        self._armed: dict[Hashable, _Armed] = {}
        self._count = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at_ms = 0
        clock.moved = self._set_alarm

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, key: Hashable, due_at_ms: int, ring: Ring) -> None:
        """Call `ring` at `due_at_ms` or soon after."""
        self._count += 1
        armed = self._armed[key] = (due_at_ms, self._count, key, ring)
        heapq.heappush(self._heap, armed)
        self._compact()
        if self._alarm is None or due_at_ms < self._alarm_at_ms:
            self._set_alarm()

    def disarm(self, key: Hashable) -> None:
        """Forget it, if it is armed."""
        self._armed.pop(key, None)
        self._compact()

    def due_at_ms(self, key: Hashable) -> int | None:
        """When it is to ring; None if it is not armed."""
        armed = self._armed.get(key)
        return None if armed is None else armed[0]

    def stop(self) -> None:
        """Ring no more."""
        self._armed.clear()
        self._heap.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _compact(self) -> None:
        """Drop what was disarmed or armed anew, once it is the greater part."""
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._armed):
            self._heap = list(self._armed.values())
            heapq.heapify(self._heap)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._heap:
            first = self._heap[0]
            due_at_ms = first[0]
            if self._armed.get(first[2]) is not first:
                heapq.heappop(self._heap)
                continue
            wait = min(max(0.0, (due_at_ms - self._clock.now_ms()) / 1000), _LATE_MAX_S)
            self._alarm_at_ms = due_at_ms
            self._alarm = asyncio.get_running_loop().call_later(wait, self._ring)
            return

    def _ring(self) -> None:
        self._alarm = None
        now_ms = self._clock.now_ms()
        loop = asyncio.get_running_loop()
        slice_ends = loop.time() + _SLICE_S
        try:
            while self._heap and self._heap[0][0] <= now_ms:
                armed = heapq.heappop(self._heap)
                due_at_ms, _, key, ring = armed
                if self._armed.get(key) is armed:
                    del self._armed[key]
                    ring(key, due_at_ms)
                    if loop.time() > slice_ends:
                        break
        finally:  # one that raises keeps no other from ringing
            self._set_alarm()
