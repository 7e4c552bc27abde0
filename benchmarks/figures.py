"""What the figures mean: pure functions over what load, collector and sampler have seen."""

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from benchmarks.order import Schedule, number_of
from benchmarks.usage import Usage

HALF_MS_US = 500.0


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of some durations, in milliseconds; all NaN-free: zero of nothing is 0."""

    p50: float
    p95: float
    p99: float
    max: float


class Result(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One result record: whose it is, when the log appended it (whole ms) and when the collector had it (us)."""

    order: str
    appended_ms: int
    received_us: float


class Completeness(msgspec.Struct, frozen=True):
    """Every order must have exactly one result. `strange`: results of orders that nobody placed."""

    orders: int
    lost: int
    doubled: int
    strange: int

    @property
    def complete(self) -> bool:
        return not (self.lost or self.doubled or self.strange)


def spread(milliseconds: Sequence[float]) -> Spread:
    """Nearest-rank percentiles: each is a duration that was really seen."""
    ordered = sorted(milliseconds)
    if not ordered:
        return Spread(0.0, 0.0, 0.0, 0.0)
    return Spread(*(round(ordered[max(0, math.ceil(len(ordered) * part) - 1)], 3) for part in (0.5, 0.95, 0.99, 1.0)))


def completeness(results: Sequence[Result], orders: int) -> Completeness:
    """Count what is missing and what is there twice among orders 0 to `orders` - 1."""
    seen = Counter(number_of(result.order) for result in results)
    known = {number: count for number, count in seen.items() if 0 <= number < orders}
    return Completeness(
        orders=orders,
        lost=orders - len(known),
        doubled=sum(count - 1 for count in known.values()),
        strange=seen.total() - sum(known.values()),
    )


def appended_us(result: Result) -> float:
    """The middle of the millisecond in which the log appended the record: half a millisecond off at most, fair on average."""
    return result.appended_ms * 1e3 + HALF_MS_US


def delays_ms(results: Sequence[Result], schedule: Schedule, *, first: int) -> tuple[list[float], list[float]]:
    """From the order's due time to its (first) result's append and to its receipt, of orders from number `first` on."""
    appended: dict[int, float] = {}
    received: dict[int, float] = {}
    for result in results:
        number = number_of(result.order)
        if not first <= number < schedule.count or number in appended:
            continue
        due_us = schedule.due_us(number)
        appended[number] = (appended_us(result) - due_us) / 1e3
        received[number] = (result.received_us - due_us) / 1e3
    return list(appended.values()), list(received.values())


def cpu_s(samples: Sequence[Usage], from_us: float, to_us: float) -> float:
    """CPU seconds (user and system) between two moments, interpolated between samples."""
    return _cpu_at(samples, to_us) - _cpu_at(samples, from_us)


def _cpu_at(samples: Sequence[Usage], at_us: float) -> float:
    before: Usage | None = None
    for sample in samples:
        if sample.at_us >= at_us:
            if before is None:
                return sample.cpu_s
            part = (at_us - before.at_us) / (sample.at_us - before.at_us)
            return before.cpu_s + part * (sample.cpu_s - before.cpu_s)
        before = sample
    return before.cpu_s if before else 0.0
