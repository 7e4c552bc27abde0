"""`TrimHold`: which trims of one partition's log wait for the history, and how many bytes of log lie there because of that. Pure."""

from __future__ import annotations

from collections import deque


class TrimHold:
    """`completed` for each checkpoint, in order; `until` says up to where the log may go now."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[int, int]] = (
            deque()
        )  # offset to trim to, and bytes of log between it and the one before
        self.size_bytes = 0
        """Of log that nobody but the history needs."""

    @property
    def waits(self) -> bool:
        """Whether any trim has not been made yet."""
        return bool(self._waiting)

    def completed(self, before: int, size_bytes: int) -> None:
        """A checkpoint is complete: the log may be trimmed to `before`, which gives up so many bytes more than the trim before."""
        self._waiting.append((before, size_bytes))
        self.size_bytes += size_bytes

    def until(self, floor: int | None) -> int | None:
        """Up to where to trim now; None: not at all. The history needs what lies at `floor` and behind it (None: everything), as far as there is room."""
        reached: int | None = None
        while self._waiting:
            before, size_bytes = self._waiting[0]
            if (floor is None or before > floor) and self.size_bytes <= self._bytes_max:
                break
            self._waiting.popleft()
            self.size_bytes -= size_bytes
            reached = before
        return reached
