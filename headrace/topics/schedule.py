"""Schedules in the run log: what one is, which slot a start is for, and the schedule's id, from which its partition follows.

A *slot* is a moment at which a schedule starts a run. Slots are computed in `service`; here and in the engine they are numbers.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

import msgspec


class Misfire(StrEnum):
    """What becomes of slots that were missed, because nobody was there when they were due."""

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"


class Overlap(StrEnum):
    """What a slot does while a run of its schedule is open."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class ScheduleSpec(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """When runs start: by a cron expression in a time zone, or every so many milliseconds. Exactly one of the two is given. Moments are since the epoch."""

    cron: str | None = None
    every_ms: int | None = None
    timezone: str = "UTC"
    misfire: Misfire = Misfire.LATEST
    overlap: Overlap = Overlap.ALLOW
    start_ms: int | None = None  # no slot is before it; with `every_ms` it is the first one
    end_ms: int | None = None  # no slot is after it


class ScheduleDefinition(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A schedule of a workflow's newest version: all that is needed to start its runs and to show it, without the app's code."""

    namespace: str
    workflow: str
    version: str
    spec: ScheduleSpec
    timeout_ms: int | None = None  # of a run
    takes_tick: bool = True  # the input is a `Tick`; else null


class Slot(msgspec.Struct, frozen=True, gc=False):
    """The slot that a start is for. It counts only if `after_ms` is the schedule's newest slot before it (compare and set)."""

    schedule: str
    at_ms: int
    after_ms: int


def schedule_id(namespace: str, workflow: str, spec: ScheduleSpec) -> str:
    """`<workflow>-<10 hex digits>`, of what decides about the slots: another time is another schedule, another policy is not. Frozen: the log has it."""
    when = spec.cron if spec.cron is not None else f"every {spec.every_ms}"
    text = f"{namespace}\0{workflow}\0{when}\0{spec.timezone}\0{spec.start_ms}"
    return f"{workflow}-{blake2b(text.encode(), digest_size=5).hexdigest()}"
