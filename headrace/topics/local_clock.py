"""This machine's time of day that nobody can set: the wall clock of the start, carried on by the monotonic one.

A wall clock that is set while the process runs, forth or back, by an hour or a day, moves nothing here.
"""

from __future__ import annotations

from time import monotonic, time


class LocalClock:
    """Milliseconds since the epoch, as right as the wall clock was when this was made."""

    def __init__(self) -> None:
        self._ahead_ms = (time() - monotonic()) * 1000

    def local_ms(self) -> float:
        """This machine's time now."""
        return monotonic() * 1000 + self._ahead_ms

    def put_right(self, local_ms: float) -> None:
        """It is `local_ms` now, as somebody else's clock says."""
        self._ahead_ms = local_ms - monotonic() * 1000
