"""Where a definition stands in the user's code, as errors show it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import CodeType


class Place(NamedTuple):
    """A file and a line, from 1. Prints as `orders/app.py:12`, below the working directory relative to it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{shown_path(self.file)}:{self.line}"


def place_of(function: object) -> Place | None:
    """Where a Python function begins (its first decorator, if it has one); `None` for what is not written in Python."""
    code: CodeType | None = getattr(function, "__code__", None)
    return None if code is None else Place(code.co_filename, code.co_firstlineno)


def shown_path(file: str) -> str:
    """A path as people want to read it: relative if it lies below the working directory."""
    path = Path(file)
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere; or the working directory is gone
        return file
