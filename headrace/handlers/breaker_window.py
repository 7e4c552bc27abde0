"""The sliding windows of a breaker: over the last calls, or over the last seconds. resilience4j's.

Pure and synchronous.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

_FAILED: Final = 1
_SLOW: Final = 2
_MS_PER_SECOND: Final = 1000


class Window(Protocol):
    """Totals over what the window still holds."""

    calls: int
    failed: int
    slow: int

    def record(self, now_ms: int, *, failed: bool, slow: bool) -> None:
        """Add one call; what is too old falls out."""
        ...


class CountWindow:
    """The last `size` calls."""

    __slots__ = ("_marks", "_size", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self._marks: deque[int] = deque()
        self.calls = self.failed = self.slow = 0

    def record(self, now_ms: int, *, failed: bool, slow: bool) -> None:
        """Add one call; the oldest falls out of a full window."""
        del now_ms
        if self.calls == self._size:
            oldest = self._marks.popleft()
            self.failed -= oldest & _FAILED
            self.slow -= oldest >> 1
        else:
            self.calls += 1
        self._marks.append(failed * _FAILED | slow * _SLOW)
        self.failed += failed
        self.slow += slow


class _Second:
    """The calls of one second."""

    __slots__ = ("calls", "failed", "number", "slow")

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = self.failed = self.slow = 0


class TimeWindow:
    """The last `seconds`, the present one included, in buckets of one second."""

    __slots__ = ("_buckets", "_seconds", "calls", "failed", "slow")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._buckets: deque[_Second] = deque()
        self.calls = self.failed = self.slow = 0

    def record(self, now_ms: int, *, failed: bool, slow: bool) -> None:
        """Add one call to its second; a clock that steps back stays in the newest one."""
        bucket = self._bucket(now_ms // _MS_PER_SECOND)
        bucket.calls += 1
        bucket.failed += failed
        bucket.slow += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow

    def _bucket(self, second: int) -> _Second:
        buckets = self._buckets
        if buckets and buckets[-1].number >= second:
            return buckets[-1]
        while buckets and buckets[0].number <= second - self._seconds:
            gone = buckets.popleft()
            self.calls -= gone.calls
            self.failed -= gone.failed
            self.slow -= gone.slow
        buckets.append(_Second(second))
        return buckets[-1]
