"""The log's clock as seen from here: the local clock plus the skew that append times show. Timers are due by it."""

from __future__ import annotations

from time import time


class LogClock:
    """Milliseconds since the epoch by the broker's clock. `skew_ms` is positive where the broker is ahead."""

    def __init__(self) -> None:
        self.skew_ms = 0

    def now_ms(self) -> int:
        """The log's time now, as good as the newest acknowledgement tells."""
        return int(time() * 1000) + self.skew_ms

    def seen(self, append_at_ms: int, called_at_ms: float, acknowledged_at_ms: float) -> None:
        """An append was stamped between call and acknowledgement (both local). Moves the skew only if the stamp lies outside of them."""
        if append_at_ms > 0 and not called_at_ms - 1 <= append_at_ms - self.skew_ms <= acknowledged_at_ms + 1:
            self.skew_ms = round(append_at_ms - (called_at_ms + acknowledged_at_ms) / 2)
