"""How answers are printed: `table`, `json`, `jsonl`, `yaml` or `name`. The JSON keys of a row are a contract; table
columns are for eyes.

No colour, no cutting of text unless stdout is a terminal; control characters never reach a table, they could
command the terminal. JSON is valid JSON whatever the locale's encoding can say.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from headrace.service.cli.terminal_table import BRIEF_TIME_WIDTH, GAP, TIME_WIDTH, Column, brief_time, cut, fitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LAST_LEAST = 24  # characters that the last column of a stream should have on a terminal


class Format(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    NAME = "name"


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

    Table columns have fixed widths, the last one takes what is left; JSON is always one object a line.
    """

    def __init__(self, columns: Sequence[tuple[Column, int]], format_: Format, *, name: str) -> None:
        self._format = Format.JSONL if format_ is Format.JSON else format_
        self._name = name
        self._begun = False
        self._terminal = sys.stdout.isatty()
        self._columns = _streamed(columns, shutil.get_terminal_size().columns) if self._terminal else list(columns)

    def row(self, row: Mapping[str, Any], *, hide: Sequence[str] = ()) -> None:
        """Print one and flush: somebody is waiting for it. `hide`: keys that only tables show."""
        if hide:
            row = {key: value for key, value in row.items() if key not in hide}
        match self._format:
            case Format.TABLE:
                if not self._begun:
                    self._line([column.heading for column, _ in self._columns], bold=True)
                    self._begun = True
                self._line([_cell(row.get(column.key)) for column, _ in self._columns])
            case Format.YAML:
                _write("---\n" + _yaml(row))
            case Format.NAME:
                _write(_cell(row[self._name]))
            case _:
                _write(_json(row))
        sys.stdout.flush()

    def _line(self, cells: Sequence[str], *, bold: bool = False) -> None:
        widths = [width for _, width in self._columns]
        if self._terminal:
            cells = [cut(brief_time(cell), width) for cell, width in zip(cells, widths, strict=True)]
        text = _line(cells, widths)
        _write(_bold(text) if bold else text)


def _streamed(columns: Sequence[tuple[Column, int]], width: int) -> list[tuple[Column, int]]:
    """The columns that leave room for the last one on a terminal of this width, and how much room that is."""
    kept = [(column, BRIEF_TIME_WIDTH if taken == TIME_WIDTH else taken) for column, taken in columns]
    while (left := width - sum(taken + len(GAP) for _, taken in kept[:-1])) < _LAST_LEAST:
        spare = max(range(len(kept)), key=lambda i: kept[i][0].spare)
        if not kept[spare][0].spare:
            break
        del kept[spare]
    return [*kept[:-1], (kept[-1][0], max(left, 1))]


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 event`, `2 events`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    if not rows:
        print("Nothing found.", file=sys.stderr)
        return
    lines = [[_cell(row.get(column.key)) for column in columns] for row in rows]
    left_out: list[str] = []
    if sys.stdout.isatty():
        columns, lines, left_out = fitted(columns, lines, shutil.get_terminal_size().columns)
    headings = [column.heading for column in columns]
    widths = [max(len(line[i]) for line in [headings, *lines]) for i in range(len(columns))]
    right = [column.right for column in columns]
    _write(_bold(_line(headings, widths, right)))
    for line in lines:
        _write(_line(line, widths, right))
    if left_out:
        print(f"Left out to fit: {', '.join(left_out)}. -o json has all.", file=sys.stderr)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool] = ()) -> str:
    aligned = [
        cell.rjust(width) if i < len(right) and right[i] else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return GAP.join(aligned).rstrip()


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


def _json(value: object, *, indent: int = 0) -> str:
    """One line without `indent`: what users sent is kept as they sent it, line breaks included, so it is set anew."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=indent or -1).decode()
    return text if is_utf8(sys.stdout) else _NOT_ASCII.sub(_escaped, text)


def is_utf8(stream: TextIO) -> bool:
    """Whether every character can be written there."""
    return (stream.encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def _escaped(match: re.Match[str]) -> str:
    """A character as JSON may always write it: in strings, the only place where others than ASCII occur."""
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _yaml(value: object) -> str:
    import yaml

    plain = msgspec.json.decode(msgspec.json.encode(value))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=is_utf8(sys.stdout), default_flow_style=False).rstrip(
        "\n"
    )


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def _write(text: str) -> None:
    print(text)
