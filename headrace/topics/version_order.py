"""Which of two versions of a workflow is newer: new runs start with the newest one that is loaded."""

from __future__ import annotations

import re

_PART = re.compile(r"([0-9]+)|([^0-9]+)", re.ASCII)


def version_order(version: str) -> tuple[object, ...]:
    """A sort key: numbers in the text count as numbers, so "2" < "10" and "1.9" < "1.10"; the text itself breaks ties."""
    parts = ((1, int(number), "") if number else (0, 0, text) for number, text in _PART.findall(version))
    return (*parts, (2, 0, version))
