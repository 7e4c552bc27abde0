"""The log's clock as seen from here: the local clock plus the skew that append times show. Timers are due by it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from headrace.topics.local_clock import LocalClock

_MOVED_MS = 5  # a step of the skew that is worth setting alarms anew


class LogClock(LocalClock):
    """Milliseconds since the epoch by the broker's clock. `skew_ms` is positive where the broker is ahead. `moved` is called after a step of it."""

    def __init__(self) -> None:
        super().__init__()
        self.skew_ms = 0
        self.moved: Callable[[], None] = _nobody

    def now_ms(self) -> int:
        """The log's time now, as good as the newest acknowledgement tells. Asked several times a run: `local_ms` without its call."""
        return int(monotonic() * 1000 + self._ahead_ms) + self.skew_ms

    def seen(self, append_at_ms: int, called_at_ms: float, acknowledged_at_ms: float) -> None:
        """An append was stamped between call and acknowledgement (both local). Moves the skew only if the stamp lies outside of them."""
        if append_at_ms > 0 and not called_at_ms - 1 <= append_at_ms - self.skew_ms <= acknowledged_at_ms + 1:
            before, self.skew_ms = self.skew_ms, round(append_at_ms - (called_at_ms + acknowledged_at_ms) / 2)
            if abs(self.skew_ms - before) > _MOVED_MS:
                self.moved()


def _nobody() -> None:
    """Is told."""
