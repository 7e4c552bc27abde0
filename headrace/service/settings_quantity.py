"""Durations and byte sizes as people write them: `"1h30m"`, `"250ms"`, `"900KiB"`.

Strict: a bare number is no duration, a typo is no size.
Used by `settings.py` and by the options of commands (`--since`, `--timeout`).
"""

from __future__ import annotations

import re

_DURATION_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|d|h|m|s)")
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 1_000,
    "KB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def duration_ms(value: object) -> int:
    """Milliseconds of a duration: units d, h, m, s, ms, each at most once, from large to small.

    `ValueError` says what is allowed.
    """
    if not isinstance(value, str):
        raise ValueError('a duration needs its unit, such as "30s", "250ms" or "1h30m"')  # noqa: TRY004 - pydantic wants ValueError
    total, end, last_unit_ms = 0.0, 0, float("inf")
    text = value.strip()
    for part in _DURATION_PART.finditer(text):
        unit_ms = _DURATION_UNITS_MS[part[2]]
        if part.start() != end or unit_ms >= last_unit_ms:
            break
        total += float(part[1]) * unit_ms
        end, last_unit_ms = part.end(), unit_ms
    if not text or end != len(text):
        raise ValueError(f'{value!r} is not a duration such as "30s", "250ms" or "1h30m" (units d, h, m, s, ms)')
    return round(total)


def byte_size(value: object) -> int:
    """Bytes of a size: a whole number, or a number with kB, MB, GB (thousands) or KiB, MiB, GiB (1024).

    `ValueError` says what is allowed.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2] in _SIZE_UNITS:
        size = float(match[1]) * _SIZE_UNITS[match[2]]
        if size.is_integer():
            return int(size)
    raise ValueError(f'{value!r} is not a size such as 1048576, "900KiB" or "64MiB"')


def duration_text(ms: float) -> str:
    """The shortest way to write a duration exactly to the millisecond: `90061000` is `1d1h1m1s`."""
    left, parts = round(ms), ""
    for unit, unit_ms in _DURATION_UNITS_MS.items():
        count, left = divmod(left, unit_ms)
        if count:
            parts += f"{count}{unit}"
    return parts or "0s"


def size_text(size: int) -> str:
    """A size with the largest binary unit that keeps it whole: `921600` is `900KiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)
