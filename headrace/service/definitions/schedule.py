"""`Schedule`: when a workflow starts by itself; and `Tick`, the input of such a run.

A schedule is a value: it is judged when it is made and does nothing by itself. `service/scheduler.py` starts its runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast, get_args

from headrace.handlers.duration import milliseconds
from headrace.service.definitions.definition_code import SCHEDULE_INVALID
from headrace.service.slots import CronRefused, checked_cron, checked_zone, to_ms
from headrace.topics.errors import DefinitionError
from headrace.topics.schedule import Misfire, Overlap, ScheduleSpec

if TYPE_CHECKING:
    from headrace.handlers.duration import Duration

_EVERY_MIN_MS = 1_000
_MisfireWord = Literal["skip", "latest", "all"]
_OverlapWord = Literal["allow", "skip", "queue"]


@dataclass(frozen=True, slots=True)
class Tick:
    """The input of a run that a schedule started: the slot it is for, in UTC, and the schedule's id. A late run has the time at which it was due."""

    scheduled_at: datetime
    schedule: str


class Schedule:
    """Start a run at each slot: of a cron expression, or every so often.

    `cron` has five fields (minute, hour, day of the month, month, day of the week), or six with seconds first, as Debian's cron reads them, and speaks of the
    clock of `timezone`, a name of the IANA database. `every` is a duration of a second or more: the first slot is one such time after the schedule is first
    seen. Give one of the two.

    `misfire`: of slots that were missed while no service ran, start the newest (`latest`), none that is more than a minute late (`skip`), or the newest
    1 000 (`all`). `overlap`: while a run of this schedule is open, start another beside it (`allow`), none (`skip`), or one behind it (`queue`). No slot is
    before `start` or after `end`, datetimes with a time zone; with `every`, `start` is the first one. None: there is no such bound. DefinitionError (HR2016,
    HR2030) names what must be changed.
    """

    __slots__ = ("spec",)

    def __init__(
        self,
        cron: str | None = None,
        *,
        every: Duration | None = None,
        timezone: str = "UTC",
        misfire: _MisfireWord = "latest",
        overlap: _OverlapWord = "allow",
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        if (cron is None) is (every is None):
            raise _refused(
                "A schedule has a cron expression or every=, one of the two.",
                'Write Schedule("0 9 * * MON-FRI") or Schedule(every="5m").',
            )
        start_ms, end_ms = _moment(start, "start"), _moment(end, "end")
        if start_ms is not None and end_ms is not None and end_ms < start_ms:
            raise _refused(f"end={end} is before start={start}.", "No slot could be between them: change one.")
        self.spec = ScheduleSpec(
            cron=None if cron is None else _cron(cron),
            every_ms=None if every is None else _every(every),
            timezone=_timezone(timezone),
            misfire=Misfire(_word(misfire, "misfire", get_args(_MisfireWord))),
            overlap=Overlap(_word(overlap, "overlap", get_args(_OverlapWord))),
            start_ms=start_ms,
            end_ms=end_ms,
        )

    def __repr__(self) -> str:
        return f"Schedule({shown(self.spec)!r})"


def shown(spec: ScheduleSpec) -> str:
    """The schedule in words, for people."""
    if spec.every_ms is not None:
        return f"every {_shown_duration(spec.every_ms)}"
    return spec.cron or "" if spec.timezone == "UTC" else f"{spec.cron} {spec.timezone}"


def _shown_duration(ms: int) -> str:
    parts: list[str] = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, ms = divmod(ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _cron(text: object) -> str:
    if not isinstance(text, str):
        raise _refused(f"{text!r} is no cron expression.", 'Give it as text: Schedule("0 9 * * MON-FRI").')
    try:
        return checked_cron(text)
    except CronRefused as error:
        raise _refused(
            f"{text!r:.200} is no cron expression: {error}.",
            "Five fields: minute, hour, day of the month, month, day of the week; six have the second first.",
        ) from error


def _every(every: Duration) -> int:
    every_ms = milliseconds(every, name="every")
    if every_ms < _EVERY_MIN_MS:
        raise _refused(
            f"every={every!r} is shorter than a second.",
            "Each slot is a run of its own: let one run do more, with run.sleep in between.",
        )
    return every_ms


def _timezone(name: object) -> str:
    try:
        return checked_zone(cast("str", name))
    except (ValueError, TypeError) as error:
        raise _refused(
            f"timezone={name!r:.200} is no time zone.", 'Give a name of the IANA database, such as "Europe/Berlin".'
        ) from error


def _word(word: object, name: str, words: tuple[str, ...]) -> str:
    if word not in words:
        raise _refused(f"{name}={word!r:.200} is no rule.", f"Choose one of {', '.join(words)}.")
    return cast("str", word)


def _moment(when: object, name: str) -> int | None:
    if when is None:
        return None
    if not isinstance(when, datetime) or when.utcoffset() is None:
        raise _refused(
            f"{name}={when!r:.200} is no moment.",
            f"Give a datetime with a time zone: {name}=datetime(..., tzinfo=UTC).",
        )
    return to_ms(when)


def _refused(message: str, do: str) -> DefinitionError:
    return DefinitionError(message, code=SCHEDULE_INVALID, do=do)
