"""Create times of the records that leave here: by the broker's clock, as append times tell it.

A broker refuses records that are an hour ahead of it for good. So a wall clock that is set moves nothing here (`local_clock.py`), and one that was wrong at the
start is put right by the first append time that shows it wrong.
"""

from __future__ import annotations

from headrace.topics.local_clock import LocalClock

_WRONG_MS = 1_000  # less than this does no harm


class Stamps:
    """Of one connection to a cluster."""

    def __init__(self) -> None:
        self._clock = LocalClock()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock.local_ms())

    def seen(self, append_at_ms: int, called_at_ms: int) -> None:
        """A broker appended between a call, by this clock, and now."""
        if not called_at_ms - _WRONG_MS <= append_at_ms <= self.now_ms() + _WRONG_MS:
            self._clock.put_right(append_at_ms)
