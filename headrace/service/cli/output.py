"""How answers are printed: `table`, `json`, `jsonl`, `yaml` or `name`. The JSON keys of a row are a contract; table
columns are for eyes.

No colour, no cutting of text unless stdout is a terminal; control characters never reach a table, they could
command the terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TERMINAL_COLUMN_MAX = 60  # characters of a cell on a terminal; pipes get everything

Row = "Mapping[str, Any]"


class Format(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    NAME = "name"


class Column(NamedTuple):
    """A column of a table: its heading, the row's key it shows, and whether numbers stand to the right."""

    heading: str
    key: str
    right: bool = False


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], format_: Format, *, name: str) -> None:
    """Print rows. `name` is the key that identifies a row, for `-o name`."""
    match format_:
        case Format.TABLE:
            _table(list(rows), columns)
        case Format.JSON:
            _write(_json(list(rows), indent=2))
        case Format.JSONL:
            for row in rows:
                _write(_json(row))
        case Format.YAML:
            _write(_yaml(list(rows)))
        case Format.NAME:
            for row in rows:
                _write(_cell(row[name]))


def show_one(row: Mapping[str, Any], format_: Format, *, name: str) -> None:
    """Print one thing: as key and value lines, or as one JSON or YAML object."""
    match format_:
        case Format.TABLE:
            filled = {key: value for key, value in row.items() if value not in (None, "", [], {})}
            width = max((len(key) for key in filled), default=0)
            for key, value in filled.items():
                _write(f"{key.replace('_', ' '):<{width}}  {_cell(value)}".rstrip())
        case Format.JSON:
            _write(_json(row, indent=2))
        case Format.JSONL:
            _write(_json(row))
        case Format.YAML:
            _write(_yaml(row))
        case Format.NAME:
            _write(_cell(row[name]))


class Stream:
    """Rows printed as they come, for commands that follow.

    Table columns have fixed widths; JSON is always one object a line.
    """

    def __init__(self, columns: Sequence[tuple[Column, int]], format_: Format, *, name: str) -> None:
        self._columns = columns
        self._format = Format.JSONL if format_ is Format.JSON else format_
        self._name = name
        self._begun = False

    def row(self, row: Mapping[str, Any], *, hide: Sequence[str] = ()) -> None:
        """Print one and flush: somebody is waiting for it. `hide`: keys that only tables show."""
        if hide:
            row = {key: value for key, value in row.items() if key not in hide}
        match self._format:
            case Format.TABLE:
                if not self._begun:
                    _write(_bold(_line([column.heading for column, _ in self._columns], self._widths)))
                    self._begun = True
                _write(_line([_cell(row.get(column.key)) for column, _ in self._columns], self._widths))
            case Format.YAML:
                _write("---\n" + _yaml(row))
            case Format.NAME:
                _write(_cell(row[self._name]))
            case _:
                _write(_json(row))
        sys.stdout.flush()

    @property
    def _widths(self) -> list[int]:
        return [width for _, width in self._columns]


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    if not rows:
        print("Nothing found.", file=sys.stderr)
        return
    lines = [[_cell(row.get(column.key)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        lines = [[_cut(cell) for cell in line] for line in lines]
    headings = [column.heading for column in columns]
    widths = [max(len(line[i]) for line in [headings, *lines]) for i in range(len(columns))]
    right = [column.right for column in columns]
    _write(_bold(_line(headings, widths, right)))
    for line in lines:
        _write(_line(line, widths, right))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool] = ()) -> str:
    aligned = [
        cell.rjust(width) if i < len(right) and right[i] else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}"
        case str() | int():
            return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))
        case _:
            return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _json(value))


def _cut(cell: str) -> str:
    limit = max(_TERMINAL_COLUMN_MAX, shutil.get_terminal_size().columns // 3)
    return cell if len(cell) <= limit else cell[: limit - 1] + "…"


def _json(value: object, *, indent: int = 0) -> str:
    """One line without `indent`: what users sent is kept as they sent it, line breaks included, so it is set anew."""
    return msgspec.json.format(msgspec.json.encode(value), indent=indent or -1).decode()


def _yaml(value: object) -> str:
    import yaml

    plain = msgspec.json.decode(msgspec.json.encode(value))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip("\n")


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def _write(text: str) -> None:
    print(text)
