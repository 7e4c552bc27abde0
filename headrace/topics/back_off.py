"""Back-off: how long to wait between tries that fail. The first wait, then twice as long each time, up to the longest."""

from __future__ import annotations

import asyncio

Bounds = tuple[float, float]
"""First and longest wait, in seconds."""

_DOUBLINGS_MAX = 10


def back_off_s(bounds: Bounds, failures: int) -> float:
    """Seconds to wait after so many failures before the last one."""
    first, longest = bounds
    return min(longest, first * 2 ** min(failures, _DOUBLINGS_MAX))


class BackOff:
    """The same, counted. `failures` since the last success."""

    __slots__ = ("_bounds", "failures")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.failures = 0

    def next_s(self) -> float:
        """A try failed: seconds to wait."""
        wait_s = back_off_s(self._bounds, self.failures)
        self.failures += 1
        return wait_s

    async def wait(self) -> None:
        """A try failed: wait."""
        await asyncio.sleep(self.next_s())

    def reset(self) -> None:
        """A try went well."""
        self.failures = 0
