"""The log's clock as seen from here: the local clock plus the skew that append times show. Timers are due by it.

The local clock is the wall clock of this object's making, carried on by the monotonic one: a wall clock that is set, forth or back, moves nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, time

_MOVED_MS = 5  # a step of the skew that is worth setting alarms anew


class LogClock:
    """Milliseconds since the epoch by the broker's clock. `skew_ms` is positive where the broker is ahead. `moved` is called after a step of it."""

    def __init__(self) -> None:
        self.skew_ms = 0
        self.moved: Callable[[], None] = _nobody
        self._began_ms = (time() - monotonic()) * 1000

    def local_ms(self) -> float:
        """This machine's time now."""
        return monotonic() * 1000 + self._began_ms

    def now_ms(self) -> int:
        """The log's time now, as good as the newest acknowledgement tells."""
        return int(monotonic() * 1000 + self._began_ms) + self.skew_ms

    def seen(self, append_at_ms: int, called_at_ms: float, acknowledged_at_ms: float) -> None:
        """An append was stamped between call and acknowledgement (both local). Moves the skew only if the stamp lies outside of them."""
        if append_at_ms > 0 and not called_at_ms - 1 <= append_at_ms - self.skew_ms <= acknowledged_at_ms + 1:
            before, self.skew_ms = self.skew_ms, round(append_at_ms - (called_at_ms + acknowledged_at_ms) / 2)
            if abs(self.skew_ms - before) > _MOVED_MS:
                self.moved()


def _nobody() -> None:
    """Is told."""
