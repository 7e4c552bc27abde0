"""A check of `headrace doctor`: its answer, as a value."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from headrace.topics.errors import HeadraceError


class State(StrEnum):
    """A check's answer."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One answer. `code` is the error's HR number where there is one. This is the JSON of `doctor`."""

    check: str
    state: State
    found: str
    fix: str = ""
    code: str = ""


def failed(check: str, error: HeadraceError) -> Check:
    """What an error says, as a failure."""
    found = f"{error.message} {error.why}".strip()
    return Check(check, State.FAIL, found, error.do, error.code)
