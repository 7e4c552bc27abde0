"""Open-loop pacing: orders leave when they are due, never because an earlier one came back.

A thread sleeps until each due time, because an event loop's timers count in whole milliseconds. Lateness is kept, and
latency is counted from the due time, so a late load makes its figures worse, not better.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from benchmarks.order import Schedule

LEAD_S = 0.2  # between the decision to start and the first order


class Pacer:
    """Iterate it once: it yields an order's number when the order is due. `schedule` is valid once it is made."""

    def __init__(self, rate: float, count: int) -> None:
        # one reading: a clock step cannot bend the schedule
        self._wall_us = time.time() * 1e6 - time.perf_counter() * 1e6
        self.schedule = Schedule(self.now_us() + LEAD_S * 1e6, rate, count)
        self._due: deque[int] = deque()
        self._wake = asyncio.Event()

    def now_us(self) -> float:
        """Since the epoch, by a clock that only runs forward."""
        return self._wall_us + time.perf_counter() * 1e6

    async def __aiter__(self) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._tick, args=(loop,), daemon=True)
        thread.start()
        for _ in range(self.schedule.count):
            while not self._due:
                await self._wake.wait()
                self._wake.clear()
            yield self._due.popleft()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in range(self.schedule.count):
            wait_s = (self.schedule.due_us(number) - self.now_us()) / 1e6
            if wait_s > 0:
                time.sleep(wait_s)
            self._due.append(number)
            loop.call_soon_threadsafe(self._wake.set)
