"""What records do to schedules: called by the fold alone. Pure; which slots there are is for others to say.

    seen ──► ACTIVE ◄──── resume ──── PAUSED
              │ ▲  └───── pause ─────────▲
              │ └─ seen again
              └──► UNNAMED: no code has it ──► forgotten, a week later

Each slot takes effect once, however many owners append it: starts and misses name the slot before theirs, and count only if that is the newest one still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.folded import Folded
from headrace.service.engine.instruction import Joined, Scheduled
from headrace.service.engine.new_run import begin_start
from headrace.service.engine.schedule_state import ScheduleState
from headrace.topics.command import PauseSchedule
from headrace.topics.identity import run_id

if TYPE_CHECKING:
    from headrace.service.engine.state import PartitionState
    from headrace.topics.command import ResumeSchedule, Start
    from headrace.topics.identity import SlotId
    from headrace.topics.outcome import ScheduleSeen, ScheduleUnnamed, SlotsMissed
    from headrace.topics.schedule import Slot

FORGOTTEN_MS = 7 * 24 * 3_600_000
"""A schedule that no definition has named for so long is forgotten. Longer than any deploy takes, or its undoing."""

_replace = msgspec.structs.replace


def begin_slot(
    state: PartitionState, offset: int, at_ms: int, size: int, identity: SlotId, start: Start, slot: Slot
) -> Folded:
    """The start of a slot, appended at `offset`: it counts if it is due, and the next one."""
    known = state.schedules.get(slot.schedule)
    next_ = known is not None and slot.after_ms == known.last_ms < slot.at_ms
    if known is None or not next_ or known.paused_ms is not None:
        return _not(Scheduled(slot.schedule, start, at_ms))
    if at_ms < slot.at_ms:
        return _not(Scheduled(slot.schedule, start, at_ms, early_ms=slot.at_ms - at_ms))
    folded = begin_start(state, offset, at_ms, size, identity, start)
    if any(isinstance(instruction, Joined) for instruction in folded.instructions):
        changed = _replace(known, last_ms=slot.at_ms, skipped=known.skipped + 1)
    else:
        run = run_id(state.partition, identity)
        changed = _replace(known, last_ms=slot.at_ms, fired=known.fired + 1, last_run=run, last_fired_ms=slot.at_ms)
    state.schedules[slot.schedule] = changed
    told = Scheduled(slot.schedule, start, at_ms, before=known, after=changed)
    return Folded(instructions=[*folded.instructions, told])


def seen(state: PartitionState, at_ms: int, record: ScheduleSeen) -> Folded:
    """The owner's code has the schedule."""
    known = state.schedules.get(record.schedule)
    if known is None:
        # no earlier than anything before it: a slot that is over stays over
        now_ms = max(at_ms, state.clock_ms)
        changed = ScheduleState(definition=record.definition, active_ms=now_ms, last_ms=now_ms)
    else:
        changed = _replace(known, definition=record.definition, unnamed_ms=None)
    return _became(state, Scheduled(record.schedule, record, at_ms, before=known, after=changed))


def missed(state: PartitionState, at_ms: int, record: SlotsMissed) -> Folded:
    """Slots that start nothing."""
    known = state.schedules.get(record.schedule)
    if (
        known is None
        or known.paused_ms is not None
        or record.after_ms != known.last_ms
        or record.until_ms <= known.last_ms
    ):
        return _not(Scheduled(record.schedule, record, at_ms))
    if at_ms < record.due_ms:
        return _not(Scheduled(record.schedule, record, at_ms, early_ms=record.due_ms - at_ms))
    changed = _replace(known, last_ms=record.until_ms, missed=known.missed + record.count)
    return _became(state, Scheduled(record.schedule, record, at_ms, before=known, after=changed))


def unnamed(state: PartitionState, at_ms: int, record: ScheduleUnnamed) -> Folded:
    """No code of the owner has it: noted, and a week later it is forgotten."""
    known = state.schedules.get(record.schedule)
    if known is None:
        return _not(Scheduled(record.schedule, record, at_ms))
    if known.unnamed_ms is None:
        changed = _replace(known, unnamed_ms=at_ms)
        return _became(state, Scheduled(record.schedule, record, at_ms, before=known, after=changed))
    early_ms = known.unnamed_ms + FORGOTTEN_MS - at_ms
    if early_ms > 0:
        return _not(Scheduled(record.schedule, record, at_ms, early_ms=early_ms))
    del state.schedules[record.schedule]
    return Folded(instructions=[Scheduled(record.schedule, record, at_ms, before=known)])


def paused_or_resumed(state: PartitionState, at_ms: int, record: PauseSchedule | ResumeSchedule) -> Folded:
    """Somebody wants it so. What passes by while it is paused is neither started nor missed."""
    known = state.schedules.get(record.schedule)
    pauses = isinstance(record, PauseSchedule)
    if known is None or (known.paused_ms is None) is not pauses:
        return _not(Scheduled(record.schedule, record, at_ms))
    passed_ms = known.last_ms if pauses else max(known.last_ms, at_ms)
    changed = _replace(known, paused_ms=at_ms if pauses else None, last_ms=passed_ms)
    return _became(state, Scheduled(record.schedule, record, at_ms, before=known, after=changed))


def _became(state: PartitionState, told: Scheduled) -> Folded:
    assert told.after is not None  # noqa: S101 - asked by the callers
    state.schedules[told.schedule] = told.after
    return Folded(instructions=[told])


def _not(told: Scheduled) -> Folded:
    return Folded(instructions=[told], without_effect=True)
