"""`ScheduleView`: one schedule as the run log knows it, without the app's code; and `Schedules`, which collects them while the log is scanned."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from headrace.service.slots import Slots
from headrace.topics.event import format_time

if TYPE_CHECKING:
    from headrace.service.engine.schedule_state import ScheduleState
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.scan import Seen

STATUSES = ("active", "paused", "unnamed", "ended")
"""What `status` may be. `unnamed`: no loaded definition has it any more; `ended`: it has no slot to come."""


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule. Times are RFC 3339 in UTC; `last_slot` and `last_run` are of the newest slot that started a run.

    This is the JSON of `schedule list`; keys are added, never renamed.
    """

    id: str
    namespace: str
    workflow: str
    version: str
    cron: str | None
    every_ms: int | None
    timezone: str
    misfire: str
    overlap: str
    start: str | None
    end: str | None
    status: str
    active_since: str
    last_slot: str | None
    next_slot: str | None
    paused_at: str | None
    fired: int
    missed: int
    skipped: int
    last_run: str | None


class Schedules:
    """Watches a scan. `found` has every schedule with its state, by id."""

    def __init__(self) -> None:
        self.found: dict[str, ScheduleState] = {}

    def begin(self, state: PartitionState) -> None:
        """A partition whose log was trimmed."""

    def see(self, seen: Seen) -> None:
        """A record of a partition."""

    def end(self, state: PartitionState) -> None:
        """What lives in a partition."""
        self.found.update(state.schedules)

    def views(self, now_ms: int | None = None) -> list[ScheduleView]:
        """All of them, by workflow."""
        return views_of(self.found, now_ms)


def views_of(schedules: dict[str, ScheduleState], now_ms: int | None = None) -> list[ScheduleView]:
    """These schedules, by workflow. `now_ms` is what the next slot comes after; None: this machine's time."""
    now_ms = round(time.time() * 1000) if now_ms is None else now_ms
    views = [view_of(id_, state, now_ms) for id_, state in schedules.items()]
    return sorted(views, key=lambda view: (view.namespace, view.workflow, view.id))


def view_of(id_: str, state: ScheduleState, now_ms: int) -> ScheduleView:
    """One schedule; the next slot comes after `now_ms`, and after those that are over."""
    definition, spec = state.definition, state.definition.spec
    upcoming = next_slots(state, now_ms, 1)
    if state.unnamed_ms is not None:
        status = "unnamed"
    elif state.paused_ms is not None:
        status = "paused"
    else:
        status = "active" if upcoming else "ended"
    return ScheduleView(
        id=id_,
        namespace=definition.namespace,
        workflow=definition.workflow,
        version=definition.version,
        cron=spec.cron,
        every_ms=spec.every_ms,
        timezone=spec.timezone,
        misfire=str(spec.misfire),
        overlap=str(spec.overlap),
        start=_time(spec.start_ms),
        end=_time(spec.end_ms),
        status=status,
        active_since=format_time(state.active_ms),
        last_slot=_time(state.last_fired_ms),
        next_slot=_time(upcoming[0]) if upcoming and status == "active" else None,
        paused_at=_time(state.paused_ms),
        fired=state.fired,
        missed=state.missed,
        skipped=state.skipped,
        last_run=state.last_run or None,
    )


def next_slots(state: ScheduleState, now_ms: int, count: int) -> list[int]:
    """The slots that come next, at most `count`, in milliseconds since the epoch."""
    slots = Slots(state.definition.spec, state.active_ms)
    return list(islice(slots.after(max(now_ms, state.last_ms)), count))


def _time(ms: int | None) -> str | None:
    return None if ms is None else format_time(ms)
