"""What a table leaves out so that it fits a terminal: a line that wraps cannot be read.

Pure: lines and a width come in, fewer and shorter cells go out. Pipes and files get everything and never come here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "  # between two columns
TIME_WIDTH = 24
BRIEF_TIME_WIDTH = 18
_TIME = re.compile(r"\d{4}-(\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d+)?)Z")
_READABLE = 24  # characters that a text needs to tell something; below that, columns that can be spared go first
_LEAST = 10  # no column is cut below this


class Column(NamedTuple):
    """A column of a table: its heading, the row's key it shows, and whether numbers stand to the right.

    `spare`: 0 is never left out; of the others the highest goes first when a terminal is too narrow.
    """

    heading: str
    key: str
    right: bool = False
    spare: int = 0


class Fitted(NamedTuple):
    """A table that fits. `left_out` are headings of columns that had something to say."""

    columns: list[Column]
    lines: list[list[str]]
    left_out: list[str]


def fitted(columns: Sequence[Column], lines: Sequence[Sequence[str]], width: int) -> Fitted:
    """The table within `width` characters, as far as that goes: the first column is an id and is never cut.

    Columns without any content go first; then times lose their year, then columns are spared, then long cells cut.
    """
    told = [i for i in range(len(columns)) if i == 0 or any(line[i] not in {"", "-"} for line in lines)]
    kept = [columns[i] for i in told]
    cells = [[line[i] for i in told] for line in lines]
    if _width(_widths(kept, cells)) > width:
        cells = [[brief_time(cell) for cell in line] for line in cells]
    left_out: list[str] = []
    while _width(_shrunk(kept, cells)) > width and (spare := _most_spare(kept)) is not None:
        left_out.append(kept.pop(spare).heading)
        cells = [[*line[:spare], *line[spare + 1 :]] for line in cells]
    widths = _cut_to(_widths(kept, cells), width)
    return Fitted(kept, [[cut(cell, widths[i]) for i, cell in enumerate(line)] for line in cells], left_out)


def brief_time(cell: str) -> str:
    """A time without year and zone; any other text as it is."""
    match = _TIME.fullmatch(cell)
    return cell if match is None else f"{match[1]} {match[2]}"


def cut(cell: str, width: int) -> str:
    """At most `width` characters, with an ellipsis where something is missing."""
    return cell if len(cell) <= width else cell[: max(0, width - 1)] + "…"


def _widths(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(column.heading), *(len(line[i]) for line in lines), 0) for i, column in enumerate(columns)]


def _shrunk(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> list[int]:
    """Widths when all texts but the id are cut as far as they stay readable."""
    first, *others = _widths(columns, lines)
    return [first, *(min(width, _READABLE) for width in others)]


def _cut_to(widths: list[int], width: int) -> list[int]:
    """Take from the widest column, one character after the other, until all fit or no column may lose more."""
    widths = list(widths)
    while (over := _width(widths) - width) > 0:
        widest = max(range(1, len(widths)), key=lambda i: widths[i], default=0)
        if widest == 0 or widths[widest] <= _LEAST:
            break
        second = max((w for i, w in enumerate(widths) if i not in {0, widest}), default=_LEAST)
        widths[widest] -= max(1, min(over, widths[widest] - max(second, _LEAST)))
    return widths


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _most_spare(columns: Sequence[Column]) -> int | None:
    index = max(range(len(columns)), key=lambda i: columns[i].spare)
    return index if columns[index].spare else None
