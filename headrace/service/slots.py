"""Slots: the moments at which a schedule starts a run. The home of cronsim; pure, given a time zone database.

What a slot is does not depend on where one begins to look, nor on who looks: every owner computes the same ones.

A cron expression speaks of the clock on the wall of its time zone. Where that clock is set forward, what it leaves out happens once, right after; where it is
set back, what it shows twice happens once, the first time. An expression whose hours are all of them (`*`) speaks of time that passes: nothing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from headrace.topics.schedule import ScheduleSpec

_ALL_HOURS = 24
_FIRST_STRETCH_MS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_FIELDS_WITH_SECONDS = 6


class CronRefused(ValueError):
    """The text is no cron expression. Its message says why."""


def checked_cron(text: str) -> str:
    """The expression with single spaces between its fields. Raises `CronRefused`."""
    fields = text.split()
    try:
        CronSim(text, _EPOCH)
    except CronSimError as error:
        raise CronRefused(str(error)) from error
    return " ".join(fields)


def checked_zone(name: str) -> str:
    """The name again. Raises `ValueError` if there is no such time zone."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"no time zone {name!r}") from error
    return name


def to_ms(when: datetime) -> int:
    """Milliseconds since the epoch of a moment with a time zone."""
    return (when - _EPOCH) // _MS


class Slots:
    """The slots of one schedule that became active at `active_ms`."""

    def __init__(self, spec: ScheduleSpec, active_ms: int) -> None:
        self._spec = spec
        self._floor_ms = active_ms  # no slot is at or before it
        self._anchor_ms = active_ms
        if spec.start_ms is not None:
            self._anchor_ms = spec.start_ms
            self._floor_ms = max(active_ms, spec.start_ms - 1)

    def after(self, ms: int) -> Iterator[int]:
        """All slots after this moment, in order."""
        spec, begin_ms = self._spec, max(ms, self._floor_ms)
        found = self._every(spec.every_ms, begin_ms) if spec.every_ms is not None else self._cron(begin_ms)
        for slot_ms in found:
            if spec.end_ms is not None and slot_ms > spec.end_ms:
                return
            yield slot_ms

    def next(self, ms: int) -> int | None:
        """The first slot after this moment; None: there will be none."""
        return next(self.after(ms), None)

    def up_to(self, first_ms: int, last_ms: int) -> Iterator[int]:
        """The slots after the first moment, and not after the last one."""
        for slot_ms in self.after(first_ms):
            if slot_ms > last_ms:
                return
            yield slot_ms

    def newest(self, count: int, after_ms: int, until_ms: int) -> list[int]:
        """The newest slots, at most `count`, after the first moment and not after the last one; the oldest first.

        Looks back in stretches that double, so that years without anybody there cost no more than what is asked for.
        """
        stretch_ms = _FIRST_STRETCH_MS
        while True:
            begin_ms = max(after_ms, until_ms - stretch_ms)
            found = list(islice(self.up_to(begin_ms, until_ms), 2 * count + 2))
            if len(found) == 2 * count + 2:  # more than were hoped for: to their end
                found = [*found[-count:], *self.up_to(found[-1], until_ms)]
            if len(found) >= count or begin_ms == after_ms:
                return found[-count:]
            stretch_ms *= 2

    def _every(self, every_ms: int, begin_ms: int) -> Iterator[int]:
        slot_ms = self._anchor_ms + max(0, (begin_ms - self._anchor_ms) // every_ms + 1) * every_ms
        while True:
            yield slot_ms
            slot_ms += every_ms

    def _cron(self, begin_ms: int) -> Iterator[int]:
        """Two slots that fall on one moment, behind a gap, are one."""
        newest_ms = begin_ms
        for when in _moments(self._spec.cron or "", ZoneInfo(self._spec.timezone), begin_ms):
            slot_ms = to_ms(when)
            if slot_ms > newest_ms:
                yield slot_ms
                newest_ms = slot_ms


def _moments(cron: str, zone: ZoneInfo, begin_ms: int) -> Iterator[datetime]:
    begin = (_EPOCH + begin_ms * _MS).astimezone(zone)
    # cronsim's own rules for gaps hold for five fields only, and for some of the expressions
    fields = cron if len(cron.split()) == _FIELDS_WITH_SECONDS else f"0 {cron}"
    if len(CronSim(fields, _EPOCH).hours) == _ALL_HOURS:
        yield from CronSim(fields, begin)
    else:
        for local in CronSim(fields, begin.replace(tzinfo=None, fold=0)):
            yield _on_the_wall(local, zone)


def _on_the_wall(local: datetime, zone: tzinfo) -> datetime:
    """When the clock on the wall shows this for the first time; or shows something later, because it never does."""
    when = local.replace(tzinfo=zone, fold=0)
    if _is_shown(when):
        return when
    when = when.replace(second=0)
    while not _is_shown(when):
        when = (when.replace(tzinfo=None) + timedelta(minutes=1)).replace(tzinfo=zone, fold=0)
    return when


def _is_shown(when: datetime) -> bool:
    return when.astimezone(UTC).astimezone(when.tzinfo).replace(tzinfo=None) == when.replace(tzinfo=None)
