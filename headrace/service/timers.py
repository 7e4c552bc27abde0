"""Timers of this process, in due order: sleeps, retry waits, run timeouts, breakers. One alarm of the event loop stands for all of them.

In memory only: what is due is derived from the log, and a timer counts when its outcome has been read back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.service.log_clock import LogClock

_LATE_MAX_S = 60.0  # the alarm is set at most this far ahead: a clock that jumps is noticed then


class Timers:
    """`arm` replaces what has the same key. Times are milliseconds of the log's clock."""

    def __init__(self, clock: LogClock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Hashable]] = []
        self._armed: dict[Hashable, tuple[int, int, Callable[[], None]]] = {}
        self._count = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at_ms = 0

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, key: Hashable, due_at_ms: int, ring: Callable[[], None]) -> None:
        """Call `ring` at `due_at_ms` or soon after."""
        self._count += 1
        self._armed[key] = (due_at_ms, self._count, ring)
        heapq.heappush(self._heap, (due_at_ms, self._count, key))
        self._compact()
        if self._alarm is None or due_at_ms < self._alarm_at_ms:
            self._set_alarm()

    def disarm(self, key: Hashable) -> None:
        """Forget it, if it is armed."""
        self._armed.pop(key, None)
        self._compact()

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
            self._heap = [(due, count, key) for key, (due, count, _) in self._armed.items()]
            heapq.heapify(self._heap)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._heap:
            due_at_ms, count, key = self._heap[0]
            armed = self._armed.get(key)
            if armed is None or armed[1] != count:
                heapq.heappop(self._heap)
                continue
            wait = min(max(0.0, (due_at_ms - self._clock.now_ms()) / 1000), _LATE_MAX_S)
            self._alarm_at_ms = due_at_ms
            self._alarm = asyncio.get_running_loop().call_later(wait, self._ring)
            return

    def _ring(self) -> None:
        self._alarm = None
        now_ms = self._clock.now_ms()
        try:
            while self._heap and self._heap[0][0] <= now_ms:
                _, count, key = heapq.heappop(self._heap)
                armed = self._armed.get(key)
                if armed is not None and armed[1] == count:
                    del self._armed[key]
                    armed[2]()
        finally:  # one that raises keeps no other from ringing
            self._set_alarm()
