"""The start of a scheduled run: of a slot, or by hand. Pure; called by the scheduler, and by commands that know a schedule from the log alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.observability.label import TriggerKind
from headrace.topics.command import OnConflict, Start
from headrace.topics.event import format_time
from headrace.topics.partition_hash import partition_of
from headrace.topics.schedule import Overlap

if TYPE_CHECKING:
    from headrace.topics.schedule import ScheduleDefinition, Slot

_POLICIES = {Overlap.ALLOW: OnConflict.ALLOW, Overlap.SKIP: OnConflict.JOIN, Overlap.QUEUE: OnConflict.QUEUE}


def home_of(schedule: str, partitions: int) -> int:
    """The run-log partition in which a schedule lives: the one that its id has as a key, so that runs that exclude each other are there already."""
    return partition_of(schedule.encode(), partitions)


def slot_start(definition: ScheduleDefinition, slot: Slot) -> Start:
    """The run of a slot."""
    return _start(definition, slot.schedule, slot.at_ms, TriggerKind.SCHEDULE, slot)


def manual_start(definition: ScheduleDefinition, schedule: str, now_ms: int) -> Start:
    """A run that somebody wants now, as if it were a slot. Its overlap holds."""
    return _start(definition, schedule, now_ms, TriggerKind.MANUAL, None)


def _start(definition: ScheduleDefinition, schedule: str, at_ms: int, trigger: TriggerKind, slot: Slot | None) -> Start:
    policy = _POLICIES[definition.spec.overlap]
    tick = {"scheduled_at": format_time(at_ms), "schedule": schedule}
    return Start(
        namespace=definition.namespace,
        workflow=definition.workflow,
        version=definition.version,
        input=msgspec.Raw(msgspec.json.encode(tick) if definition.takes_tick else b"null"),
        trigger=trigger,
        key=None if policy is OnConflict.ALLOW else schedule,
        policy=policy,
        timeout_ms=definition.timeout_ms,
        event_at_ms=at_ms,
        slot=slot,
    )
