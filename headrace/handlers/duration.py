"""Durations as people write them, turned into whole milliseconds.

Pure. Called by definitions and policies, at import of a user's app: so every error is a `DefinitionError` that names
the field.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from headrace.topics.errors import DefinitionError

Duration = str | timedelta
"""`"250ms"`, `"2s"`, `"1h30m"`, `"1d"`, or a timedelta. Bare numbers are refused: nobody can see their unit."""

_MS_PER_UNIT: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART: Final = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))?(ms|[wdhms])")
_TEXT_CHARS_MAX: Final = 64  # the longest sensible text is half of that
MILLISECONDS_MAX: Final = 36_500 * 86_400_000  # a hundred years: what event loops and datetimes still take


def milliseconds(duration: Duration, *, name: str, zero: bool = False) -> int:
    """The duration in whole milliseconds, 1 to `MILLISECONDS_MAX`; 0 only if `zero`.

    `name` is the field, for the message. DefinitionError (HR2030): the text or value must be changed.
    """
    if isinstance(duration, str):
        total_ms = _of_text(duration, name)
    elif isinstance(duration, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        total_ms = _of_timedelta(duration, name)
    else:
        raise _refused(name, duration, "it is not text and not a timedelta")
    if total_ms < 0:
        raise _refused(name, duration, "it is negative")
    if total_ms == 0 and not zero:
        raise _refused(name, duration, "it must be longer than zero")
    if total_ms > MILLISECONDS_MAX:
        raise _refused(name, duration, "it is longer than a hundred years")
    return total_ms


def _of_text(text: str, name: str) -> int:
    compact = text.strip()
    if len(compact) > _TEXT_CHARS_MAX:
        raise _refused(name, compact[:_TEXT_CHARS_MAX], f"it is longer than {_TEXT_CHARS_MAX} characters")
    units = list(_MS_PER_UNIT)
    total_ms, position, last_unit = 0, 0, -1
    while position < len(compact):
        part = _PART.match(compact, position)
        if part is None:
            raise _refused(name, text, "a number with a unit (w, d, h, m, s or ms) is expected" + _hint(compact))
        unit = units.index(part[3])
        if unit <= last_unit:
            raise _refused(name, text, "units go from long to short, each once")
        fraction = part[2] or ""
        scaled, rest = divmod(int(part[1] + fraction) * _MS_PER_UNIT[part[3]], 10 ** len(fraction))
        if rest:
            raise _refused(name, text, "it is finer than a millisecond")
        total_ms, position, last_unit = total_ms + scaled, part.end(), unit
    if last_unit < 0:
        raise _refused(name, text, "it is empty")
    return total_ms


def _of_timedelta(duration: timedelta, name: str) -> int:
    total_ms, rest = divmod(duration, timedelta(milliseconds=1))
    if rest:
        raise _refused(name, duration, "it is finer than a millisecond")
    return total_ms


def _hint(text: str) -> str:
    return "; a bare number has no unit" if text.replace(".", "", 1).isdigit() else ""


def _refused(name: str, duration: object, why: str) -> DefinitionError:
    return DefinitionError(
        f"{name}={duration!r} is not a duration that can be used: {why}.",
        code="HR2030",
        do='Write for example "250ms", "2s", "1h30m" or "1d", or give a timedelta.',
    )
