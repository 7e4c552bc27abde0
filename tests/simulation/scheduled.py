"""A schedule of the simulation's app, as data."""

import msgspec

from headrace.topics.schedule import Misfire, Overlap


class Scheduled(msgspec.Struct):
    """A schedule of the app, until `until_s`. `pauses`: from when, and for how long."""

    every_s: int
    misfire: Misfire
    overlap: Overlap
    act_ms: int  # what a run takes
    until_s: float
    pauses: list[tuple[float, float]] = []
