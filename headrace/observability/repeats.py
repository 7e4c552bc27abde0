"""`Repeats`.

The first few lines of a kind are written, the rest of the window is counted. An outage must not fill a disk.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final, NamedTuple

LINES_MAX: Final = 5
"""Per kind and window: enough to see the pattern."""
WINDOW_S: Final = 10.0
KINDS_MAX: Final = 1000
"""Remembered at once; the oldest is forgotten first."""


class Pass(NamedTuple):
    """Write the line. `repeated` lines of its kind were left out before it."""

    repeated: int


class LeaveOut(NamedTuple):
    """Do not write the line; it is counted."""


class _Window:
    __slots__ = ("began_s", "left_out", "written")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.written = 0
        self.left_out = 0


class Repeats:
    """Decides by kind. Safe from several threads."""

    def __init__(self, *, lines_max: int = LINES_MAX, window_s: float = WINDOW_S, kinds_max: int = KINDS_MAX) -> None:
        self._lines_max = lines_max
        self._window_s = window_s
        self._kinds_max = kinds_max
        self._windows: dict[Hashable, _Window] = {}
        self._one = threading.Lock()

    def admit(self, kind: Hashable, now_s: float) -> Pass | LeaveOut:
        """May a line of this kind be written at `now_s` (any clock that does not go back)?"""
        with self._one:
            window = self._windows.get(kind)
            repeated = 0
            if window is None or now_s - window.began_s >= self._window_s:
                repeated = 0 if window is None else window.left_out
                self._windows.pop(kind, None)  # the table is in order of beginning
                window = self._windows[kind] = _Window(now_s)
                if len(self._windows) > self._kinds_max:
                    del self._windows[next(iter(self._windows))]
            if window.written < self._lines_max:
                window.written += 1
                return Pass(repeated)
            window.left_out += 1
            return LeaveOut()

    def over(self, now_s: float) -> list[tuple[Hashable, int]]:
        """Kinds whose window is over with lines left out, and how many.

        To be told now, because no further line may come. Forgets them.
        """
        told: list[tuple[Hashable, int]] = []
        with self._one:
            while self._windows:
                kind, window = next(iter(self._windows.items()))
                if now_s - window.began_s < self._window_s:
                    break
                del self._windows[kind]
                if window.left_out:
                    told.append((kind, window.left_out))
        return told
