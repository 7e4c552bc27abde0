"""Schedules: what starts by the clock, when next, and a way to stop or hasten it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from headrace.service import schedule_command
from headrace.service.api.answers import EmptyRequest
from headrace.service.api.asked_values import body_as, number_of
from headrace.service.api.route import Answer, Asked
from headrace.service.api.run_routes import PATIENCE_S
from headrace.service.client_log import opened
from headrace.service.run_view.missing import unread
from headrace.service.run_view.scan import scan
from headrace.service.run_view.schedules import Schedules, ScheduleView, next_slots, view_of
from headrace.topics.event import format_time

if TYPE_CHECKING:
    from headrace.service.api.facade import Facade
    from headrace.service.engine.schedule_state import ScheduleState
    from headrace.topics.log import Log

_SLOTS_MAX = 1_000
_SLOTS = 10


class ScheduleList(msgspec.Struct, frozen=True, kw_only=True):
    """All schedules, by workflow."""

    items: tuple[ScheduleView, ...]
    next: None = None
    notes: tuple[str, ...] = ()


class SlotList(msgspec.Struct, frozen=True, kw_only=True):
    """The slots that come next, RFC 3339 in UTC."""

    items: tuple[str, ...]
    next: None = None


class ScheduleTriggered(msgspec.Struct, frozen=True, kw_only=True):
    """A run was started, as if this were a slot."""

    id: str
    command: str
    run: str


async def list_schedules(facade: Facade, _asked: Asked) -> Answer:
    """GET schedules."""
    found = Schedules()
    async with facade.scanning, opened(facade.settings) as log:
        problems = await scan(log, facade.settings, found)
    return Answer(body=ScheduleList(items=tuple(found.views()), notes=unread(problems)))


async def get_schedule(facade: Facade, asked: Asked) -> Answer:
    """GET schedules/{schedule}."""
    async with opened(facade.settings) as log:
        id_, state = await _found(facade, log, asked)
    return Answer(body=view_of(id_, state, time.time_ns() // 1_000_000))


async def list_slots(facade: Facade, asked: Asked) -> Answer:
    """GET schedules/{schedule}/next."""
    count = number_of(asked, "count", default=_SLOTS, most=_SLOTS_MAX)
    async with opened(facade.settings) as log:
        _, state = await _found(facade, log, asked)
    slots = next_slots(state, time.time_ns() // 1_000_000, count)
    return Answer(body=SlotList(items=tuple(map(format_time, slots))))


async def trigger_schedule(facade: Facade, asked: Asked) -> Answer:
    """POST schedules/{schedule}/trigger."""
    _nothing(facade, asked)
    async with opened(facade.settings) as log:
        id_, _ = await _found(facade, log, asked)
        run = await schedule_command.trigger(log, facade.settings, id_, patience_s=PATIENCE_S)
    return Answer(body=ScheduleTriggered(id=id_, command="trigger", run=run))


async def pause_schedule(facade: Facade, asked: Asked) -> Answer:
    """POST schedules/{schedule}/pause."""
    _nothing(facade, asked)
    async with opened(facade.settings) as log:
        id_, _ = await _found(facade, log, asked)
        view = await schedule_command.pause(log, facade.settings, id_, patience_s=PATIENCE_S)
    return Answer(body=view)


async def resume_schedule(facade: Facade, asked: Asked) -> Answer:
    """POST schedules/{schedule}/resume."""
    _nothing(facade, asked)
    async with opened(facade.settings) as log:
        id_, _ = await _found(facade, log, asked)
        view = await schedule_command.resume(log, facade.settings, id_, patience_s=PATIENCE_S)
    return Answer(body=view)


async def _found(facade: Facade, log: Log, asked: Asked) -> tuple[str, ScheduleState]:
    async with facade.scanning:
        return await schedule_command.find(log, facade.settings, asked.path["schedule"])


def _nothing(facade: Facade, asked: Asked) -> None:
    body_as(asked, EmptyRequest, nesting_max=facade.settings.limits.nesting, empty=EmptyRequest())
