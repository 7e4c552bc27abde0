"""What is measured: each target with a burst and at fixed rates."""

from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatch
from typing import NamedTuple


class TargetName(StrEnum):
    """Who does the work."""

    FLOOR = "floor"
    KAFKA = "kafka"
    EIGHT = "eight"  # the same with 8 partitions of the run log instead of 64
    WORKERS_2 = "workers2"  # processes under one supervisor
    WORKERS_4 = "workers4"
    EMBEDDED = "embedded"


_BURST_ONLY = {TargetName.WORKERS_2, TargetName.WORKERS_4}  # what several processes are for


class Scenario(NamedTuple):
    """`rate` orders a second, by a fixed schedule; 0: all are in the topic before the service starts.

    `orders` counts the first `warm_up` ones too, whose figures are left out.
    """

    target: TargetName
    rate: float
    orders: int
    warm_up: int

    @property
    def name(self) -> str:
        return f"{self.target}-{self.load}"

    @property
    def load(self) -> str:
        return f"{self.rate:g}" if self.rate else "burst"

    @property
    def measured(self) -> int:
        return self.orders - self.warm_up


class Loads(NamedTuple):
    """`burst` orders at once, and `rates` for `seconds` each after `warm_up_s`."""

    burst: int
    rates: Sequence[float]
    seconds: float
    warm_up_s: float


def scenarios(loads: Loads, only: Sequence[str] = ()) -> list[Scenario]:
    """All, or those whose name fits one of the patterns (`kafka-*`) or begins with it (`kafka`)."""
    every = [scenario for target in TargetName for scenario in _of(target, loads)]
    return [one for one in every if not only or any(fnmatch(one.name, f"{pattern}*") for pattern in only)]


def _of(target: TargetName, loads: Loads) -> list[Scenario]:
    open_loop = (
        []
        if target in _BURST_ONLY
        else [
            Scenario(target, rate, round(rate * (loads.warm_up_s + loads.seconds)), round(rate * loads.warm_up_s))
            for rate in loads.rates
        ]
    )
    return [Scenario(target, 0, loads.burst, 0), *open_loop]
