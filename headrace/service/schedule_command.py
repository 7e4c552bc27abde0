"""Schedules found in the run log, paused, resumed, and started by hand. Called by the command line and by the API.

Like all commands to the run log, these are read back: the answer is what every owner will see.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.service.engine.instruction import Begin, Joined, Queued
from headrace.service.names import Names
from headrace.service.request_error import Conflict, NotFound
from headrace.service.run_view.scan import Reading, scan
from headrace.service.run_view.schedules import Schedules, view_of
from headrace.service.schedule_start import home_of, manual_start
from headrace.service.sent_command import sent
from headrace.topics.command import PauseSchedule, ResumeSchedule
from headrace.topics.identity import run_id
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.engine.schedule_state import ScheduleState
    from headrace.service.run_view.scan import Seen
    from headrace.service.run_view.schedules import ScheduleView
    from headrace.service.settings import Settings
    from headrace.topics.command import Command
    from headrace.topics.identity import ClientId
    from headrace.topics.log import Log

UNKNOWN_SCHEDULE = "HR4121"
WRONG_STATE = "HR4122"


async def find(log: Log, settings: Settings, name: str) -> tuple[str, ScheduleState]:
    """The schedule of this id; or of this workflow, if that has one. Raises NotFound, Conflict (it has several)."""
    topic = Names(settings.app.name).runs
    partitions = await log.partitions(topic)
    home = Schedules()
    await scan(log, settings, home, only=[home_of(name, partitions)])
    if name in home.found:
        return name, home.found[name]
    all_ = Schedules()
    await scan(log, settings, all_)
    named = {
        id_: state
        for id_, state in all_.found.items()
        if name in {state.definition.workflow, f"{state.definition.namespace}/{state.definition.workflow}"}
    }
    if len(named) > 1:
        message = f"{name} has {len(named)} schedules: {', '.join(sorted(named))}."
        raise Conflict(message, code=WRONG_STATE, do="Name one of them.")
    for id_, state in named.items():
        return id_, state
    raise _unknown(name, topic)


async def pause(log: Log, settings: Settings, schedule: str, *, patience_s: float | None) -> ScheduleView:
    """Start no more runs of it until it is resumed. Raises NotFound, Conflict (it is paused), TimedOut."""

    def allowed(state: ScheduleState) -> Command:
        if state.paused_ms is not None:
            raise Conflict(f"{schedule} is paused already.", code=WRONG_STATE, do="Nothing is left to do.")
        return PauseSchedule(schedule)

    return await _changed(log, settings, schedule, allowed, patience_s)


async def resume(log: Log, settings: Settings, schedule: str, *, patience_s: float | None) -> ScheduleView:
    """Let it go on with its next slot. Raises NotFound, Conflict (it is not paused), TimedOut."""

    def allowed(state: ScheduleState) -> Command:
        if state.paused_ms is None:
            raise Conflict(f"{schedule} is not paused.", code=WRONG_STATE, do="Nothing is left to do.")
        return ResumeSchedule(schedule)

    return await _changed(log, settings, schedule, allowed, patience_s)


async def trigger(log: Log, settings: Settings, schedule: str, *, patience_s: float | None) -> str:
    """Start a run now, as if this were a slot: its id. Paused or not. Raises NotFound, Conflict (a run is open and the overlap is `skip`), TimedOut."""

    def allowed(state: ScheduleState) -> Command:
        if state.unnamed_ms is not None:
            raise Conflict(
                f"No workflow has the schedule {schedule} any more.",
                code=WRONG_STATE,
                why="The newest definitions do not name it.",
                do="Deploy a version that has it, or name another schedule.",
            )
        return manual_start(state.definition, schedule, round(time.time() * 1000))

    identity, seen = await _sent(log, settings, schedule, allowed, patience_s)
    for instruction in seen.folded.instructions:
        match instruction:
            case Begin(run=run) | Queued(run=run):
                return run.id
            case Joined(run=run):
                message = f"{schedule} has an open run, {run.id}, and its overlap is `skip`: none was started."
                raise Conflict(message, code=WRONG_STATE, do=f"Wait for it: `headrace run watch {run.id}`.")
            case _:
                continue
    return run_id(seen.state.partition, identity)


async def _changed(
    log: Log, settings: Settings, schedule: str, allowed: Callable[[ScheduleState], Command], patience_s: float | None
) -> ScheduleView:
    _, seen = await _sent(log, settings, schedule, allowed, patience_s)
    state = seen.state.schedules.get(schedule)
    if state is None:
        raise _unknown(schedule, seen.state.topic)
    if seen.folded.without_effect:  # another record came in between
        allowed(state)
    return view_of(schedule, state, seen.timestamp_ms)


async def _sent(
    log: Log, settings: Settings, schedule: str, allowed: Callable[[ScheduleState], Command], patience_s: float | None
) -> tuple[ClientId, Seen]:
    """Append what is allowed once the schedule's present state is known, and read it back."""
    topic = Names(settings.app.name).runs
    partitions = await log.partitions(topic)
    reading = Reading(TopicPartition(topic, home_of(schedule, partitions)), settings, partitions=partitions)

    def allowed_now() -> Command:
        state = reading.state.schedules.get(schedule)
        if state is None:
            raise _unknown(schedule, topic)
        return allowed(state)

    return await sent(log, reading, allowed_now, patience_s=patience_s)


def _unknown(name: str, topic: str) -> NotFound:
    return NotFound(
        f"{topic} has no schedule {name}.",
        code=UNKNOWN_SCHEDULE,
        why="A schedule is in the run log once a service has run whose newest definitions name it.",
        do="See `headrace schedule list`; is app.name right?",
    )
