"""Create times of the records that leave here: by the broker's clock, as append times tell it.

A broker refuses records that are an hour ahead of it for good. So a wall clock that is set, by an hour or a day, moves nothing here: the one of the start is
carried on by the monotonic clock, and put right by the first append time that shows it wrong.
"""

from __future__ import annotations

import time

_WRONG_MS = 1_000  # less than this does no harm


class Stamps:
    """Of one connection to a cluster."""

    def __init__(self) -> None:
        self._ahead_ms = time.time_ns() / 1e6 - _monotonic_ms()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(_monotonic_ms() + self._ahead_ms)

    def seen(self, append_at_ms: int, called_at_ms: int) -> None:
        """A broker appended between a call, by this clock, and now."""
        if not called_at_ms - _WRONG_MS <= append_at_ms <= self.now_ms() + _WRONG_MS:
            self._ahead_ms = append_at_ms - _monotonic_ms()


def _monotonic_ms() -> float:
    return time.monotonic_ns() / 1e6
