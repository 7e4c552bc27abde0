"""`headrace schedule list|next|trigger|pause|resume`: schedules as the run log knows them, and commands for one of them."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from cyclopts import Parameter

from headrace.service import schedule_command
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode, Usage
from headrace.service.cli.option import Common, Timeout, incomplete, options, seconds
from headrace.service.cli.output import show, show_one
from headrace.service.cli.terminal_table import Column
from headrace.service.definitions.schedule import shown
from headrace.service.run_view.scan import scan
from headrace.service.run_view.schedules import Schedules, next_slots
from headrace.topics.event import format_time

ScheduleArgument = Annotated[str, Parameter(help="The schedule's id; or its workflow, if that has one schedule only.")]

_COUNT_MAX = 1_000
_LIST = (
    Column("SCHEDULE", "id"),
    Column("WORKFLOW", "workflow"),
    Column("WHEN", "when"),
    Column("STATUS", "status"),
    Column("LAST SLOT", "last_slot", spare=2),
    Column("NEXT SLOT", "next_slot"),
    Column("FIRED", "fired", right=True, spare=3),
    Column("MISSED", "missed", right=True, spare=4),
    Column("SKIPPED", "skipped", right=True, spare=5),
    Column("LAST RUN", "last_run", spare=1),
)
_NEXT = (Column("SLOT", "at"), Column("LOCAL TIME", "local"))


async def list_(*, common: Common | None = None) -> ExitCode:
    """List schedules with their last and next slots."""
    common = options(common)
    settings = common.load().settings
    schedules = Schedules()
    async with opened(settings) as log:
        problems = await scan(log, settings, schedules)
    exit_code = incomplete(problems)
    rows: list[dict[str, Any]] = [
        {**msgspec.to_builtins(view), "when": shown(schedules.found[view.id].definition.spec)}
        for view in schedules.views()
    ]
    show(rows, _LIST, common.output, name="id")
    return exit_code


async def next_(
    schedule: ScheduleArgument,
    /,
    *,
    count: Annotated[int, Parameter(name=("--count", "-n"), help="How many slots.")] = 10,
    common: Common | None = None,
) -> None:
    """Show the slots that come next, in UTC and in the schedule's time zone."""
    if not 1 <= count <= _COUNT_MAX:
        raise Usage(f"--count {count} is not 1 to {_COUNT_MAX}.", do="Write --count 10, say.")
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        id_, state = await schedule_command.find(log, settings, schedule)
    zone = ZoneInfo(state.definition.spec.timezone)
    slots = next_slots(state, round(time.time() * 1000), count)
    local = [datetime.fromtimestamp(slot_ms / 1000, UTC).astimezone(zone).isoformat() for slot_ms in slots]
    rows = [{"schedule": id_, "at": format_time(at), "local": there} for at, there in zip(slots, local, strict=True)]
    show(rows, _NEXT, common.output, name="at")


async def trigger(schedule: ScheduleArgument, /, *, patience: Timeout = "30s", common: Common | None = None) -> None:
    """Start a run now, as if this were a slot. The schedule's own slots stay as they are."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        id_, _ = await schedule_command.find(log, settings, schedule)
        run = await schedule_command.trigger(log, settings, id_, patience_s=patience_s)
    show_one({"id": run, "command": "trigger", "schedule": id_}, common.output, name="id")


async def pause(schedule: ScheduleArgument, /, *, patience: Timeout = "30s", common: Common | None = None) -> None:
    """Start no more runs of a schedule until it is resumed."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        id_, _ = await schedule_command.find(log, settings, schedule)
        view = await schedule_command.pause(log, settings, id_, patience_s=patience_s)
    show_one({"id": id_, "command": "pause", "status": view.status}, common.output, name="id")


async def resume(schedule: ScheduleArgument, /, *, patience: Timeout = "30s", common: Common | None = None) -> None:
    """Let a paused schedule go on with its next slot: those that passed by start nothing."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        id_, _ = await schedule_command.find(log, settings, schedule)
        view = await schedule_command.resume(log, settings, id_, patience_s=patience_s)
    show_one({"id": id_, "command": "resume", "next_slot": view.next_slot}, common.output, name="id")
