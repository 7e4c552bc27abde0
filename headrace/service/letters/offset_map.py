"""Values of offsets, kept as ranges: neighbours mostly have the same one. Pure."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

V = TypeVar("V")


class OffsetMap(Generic[V]):
    """Ranges are disjoint and in order; both ends are in them. What was never put has no value."""

    def __init__(self) -> None:
        self._lasts: list[int] = []
        self._spans: list[tuple[int, int, V]] = []

    def get(self, offset: int) -> V | None:
        """The value of an offset."""
        index = bisect_left(self._lasts, offset)
        if index == len(self._spans) or self._spans[index][0] > offset:
            return None
        return self._spans[index][2]

    def change(self, first: int, last: int, become: Callable[[V | None], V]) -> None:
        """Give each offset from `first` to `last` what becomes of its value."""
        begin = end = bisect_left(self._lasts, first)
        pieces: list[tuple[int, int, V]] = []
        at = first
        while end < len(self._spans) and self._spans[end][0] <= last:
            low, high, value = self._spans[end]
            if low < first:
                pieces.append((low, first - 1, value))
            if at < low:
                pieces.append((at, low - 1, become(None)))
            pieces.append((max(low, first), min(high, last), become(value)))
            if high > last:
                pieces.append((last + 1, high, value))
            at = high + 1
            end += 1
        if at <= last:
            pieces.append((at, last, become(None)))
        # neighbours that have become the same
        if begin:
            begin -= 1
            pieces.insert(0, self._spans[begin])
        if end < len(self._spans):
            pieces.append(self._spans[end])
            end += 1
        merged = list(_merged(pieces))
        self._spans[begin:end] = merged
        self._lasts[begin:end] = [high for _, high, _ in merged]

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, V]]:
        """Ranges as far as they lie at `start` or behind it and below `end`."""
        for index in range(bisect_left(self._lasts, start), len(self._spans)):
            low, high, value = self._spans[index]
            if low >= end:
                return
            yield max(low, start), min(high, end - 1), value

    def forget_below(self, start: int) -> None:
        """What lies before it is gone."""
        gone = bisect_left(self._lasts, start)
        del self._spans[:gone], self._lasts[:gone]


def _merged(pieces: list[tuple[int, int, V]]) -> Iterator[tuple[int, int, V]]:
    low, high, value = pieces[0]
    for next_low, next_high, next_value in pieces[1:]:
        if next_low == high + 1 and next_value == value:
            high = next_high
            continue
        yield low, high, value
        low, high, value = next_low, next_high, next_value
    yield low, high, value
