"""A queue that is filled and emptied: how long until it is empty, or too long.

Pure: numbers in, seconds out. `math.inf` means "not at the present rates".
"""

from __future__ import annotations

import math

import msgspec

from headrace.observability.forecast_trend import Trend


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What comes and what goes.

    `backlog`: waiting now. `arrivals`: with their trend. `capacity_per_s`: what can be served; None if nothing was
    served yet, so that nobody knows.
    """

    backlog: float
    arrivals: Trend
    capacity_per_s: float | None
    served_per_s: float = 0.0

    def drain_s(self) -> float:
        """Seconds until nothing waits; 0 if nothing does. Infinite if it does not shrink, or nobody knows how fast."""
        if self.backlog <= 0:
            return 0.0
        if self.capacity_per_s is None:
            return math.inf
        return _reaches(self, 0.0)

    def breach_s(self, delay_limit_s: float) -> float:
        """Seconds until whoever comes would wait for longer than the limit: 0 if it is so now, infinite if never."""
        capacity = self.capacity_per_s
        if capacity is None:
            return math.inf
        if self.backlog >= capacity * delay_limit_s:
            return 0.0 if self.backlog else math.inf
        return _reaches(self, capacity * delay_limit_s)


def _reaches(flow: Flow, level: float) -> float:
    """When the backlog is `level` for the first time, if arrivals go on as they are and capacity stays."""
    arrivals, capacity = flow.arrivals, flow.capacity_per_s or 0.0
    missing = level - flow.backlog
    turn_s = arrivals.trend_s
    early = _root(arrivals.slope / 2, arrivals.per_s - capacity, -missing, within=turn_s)
    if early is not None:
        return early
    at_turn = flow.backlog + arrivals.expected(turn_s) - capacity * turn_s
    after = max(0.0, arrivals.per_s + arrivals.slope * turn_s) - capacity
    left = level - at_turn
    if left == 0:
        return turn_s
    return turn_s + left / after if after and left / after > 0 else math.inf


def _root(a: float, b: float, c: float, *, within: float) -> float | None:
    """The smallest x in (0, within] with a x² + b x + c = 0."""
    if within <= 0:
        return None
    if abs(a) < 1e-12:
        roots = [] if b == 0 else [-c / b]
    else:
        inside = b * b - 4 * a * c
        if inside < 0:
            return None
        wide = math.sqrt(inside)
        roots = [(-b - wide) / (2 * a), (-b + wide) / (2 * a)]
    found = [root for root in roots if 0 < root <= within]
    return min(found, default=None)
