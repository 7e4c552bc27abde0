"""The state of one schedule: what the records of the log mean for it so far. Changed by `schedule.py` alone."""

from __future__ import annotations

import msgspec

from headrace.topics.schedule import ScheduleDefinition


class ScheduleState(msgspec.Struct, frozen=True, gc=False):
    """A schedule that was seen. Moments are since the epoch, by the log's clock.

    `last_ms` is its newest slot that is over: started, missed, or passed by while it was paused; first the time of its activation. Every slot up to it is over
    for good, and none after it is.
    """

    definition: ScheduleDefinition
    active_ms: int  # when it became active: no slot is before it, and `every` counts from it
    last_ms: int
    fired: int = 0  # slots that started a run, or were put in a queue
    missed: int = 0  # slots that nobody was there for, and that the rule left out
    skipped: int = 0  # slots that found a run open, where the overlap says that they start none
    last_run: str = ""  # that a slot has started
    last_fired_ms: int | None = None  # its slot
    paused_ms: int | None = None
    unnamed_ms: int | None = None  # since when no definition names it
