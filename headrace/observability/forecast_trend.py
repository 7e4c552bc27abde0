"""What a measured rate is now, and where it goes: the simplest of three descriptions that fits.

Pure. A window of rates is a level, a line, or a step to a new level some time ago; which of them is decided by the
Bayesian information criterion, so that noise makes no trend and a burst does not wait until the window forgets the
time before it. After a step only what follows it counts, and is described in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

_LINE_MIN: Final = 8  # fewer measurements make a line of any noise
_SIDE_MIN: Final = 3  # measurements on each side of a step
_COSTS: Final = {"level": 1, "line": 3, "step": 4}
"""Free parameters, and one more: a step is found in noise more easily than its place is worth, a line too."""


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """`per_s` at the end of the window, at least 0; `slope` is its change in 1/s per second, 0 without a clear trend.

    `holds_s`: as long as it was seen, and no longer, a trend is believed to go on.
    """

    per_s: float
    slope: float = 0.0
    holds_s: float = 0.0

    def expected(self, after_s: float) -> float:
        """How much comes within the next `after_s` seconds."""
        turn_s = min(after_s, self.trend_s)
        grown = self.per_s * turn_s + self.slope * turn_s**2 / 2
        return grown + (after_s - turn_s) * max(0.0, self.per_s + self.slope * turn_s)

    @property
    def trend_s(self) -> float:
        """For how long the rate changes: until the trend ends, or the rate is 0."""
        if self.slope < 0:
            return min(self.holds_s, self.per_s / -self.slope)
        return self.holds_s if self.slope else 0.0


NOTHING: Final = Trend(per_s=0.0)


def fitted(at_s: Sequence[float], rates: Sequence[float]) -> Trend:
    """The trend of rates (1/s) that were measured at these moments (seconds, rising)."""
    n = len(rates)
    if n == 0:
        return NOTHING
    mean = math.fsum(rates) / n
    best, choice, cut = _score(_around(rates, mean), n, mean, "level"), "level", 0
    slope, at_end = 0.0, mean
    if n >= _LINE_MIN:
        slope, at_end, left = _line(at_s, rates, mean)
        score = _score(left, n, mean, "line")
        if score < best:
            best, choice = score, "line"
        place, left = _step(rates)
        if _score(left, n, mean, "step") < best:
            choice, cut = "step", place
    if choice == "step":
        return fitted(at_s[cut:], rates[cut:])
    if choice == "line":
        return Trend(per_s=max(0.0, at_end), slope=slope, holds_s=at_s[-1] - at_s[0])
    return Trend(per_s=max(0.0, mean))


def _score(left: float, n: int, mean: float, choice: str) -> float:
    """The criterion; `left` is what the description does not explain. Below a thousandth of the mean nobody cares."""
    floor = n * ((mean * 1e-3) ** 2 + 1e-12)
    return n * math.log(max(left, floor) / n) + _COSTS[choice] * math.log(n)


def _around(rates: Sequence[float], mean: float) -> float:
    return math.fsum((rate - mean) ** 2 for rate in rates)


def _line(at_s: Sequence[float], rates: Sequence[float], mean: float) -> tuple[float, float, float]:
    """Slope, value at the end, and the squares that are left, by least squares."""
    middle = math.fsum(at_s) / len(at_s)
    spread = math.fsum((at - middle) ** 2 for at in at_s)
    slope = math.fsum((at - middle) * (rate - mean) for at, rate in zip(at_s, rates, strict=True)) / spread
    left = math.fsum((rate - mean - slope * (at - middle)) ** 2 for at, rate in zip(at_s, rates, strict=True))
    return slope, mean + slope * (at_s[-1] - middle), left


def _step(rates: Sequence[float]) -> tuple[int, float]:
    """Where the second level begins so that least is left, and how much that is."""
    n, total = len(rates), math.fsum(rates)
    squares = math.fsum(rate * rate for rate in rates)
    best, place, before = math.inf, n, 0.0
    for index in range(1, n):
        before += rates[index - 1]
        if not _SIDE_MIN <= index <= n - _SIDE_MIN:
            continue
        left = squares - before**2 / index - (total - before) ** 2 / (n - index)
        if left < best:
            best, place = left, index
    return place, max(0.0, best)
