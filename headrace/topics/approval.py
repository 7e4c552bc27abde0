"""Approvals on the wire: what somebody may say, how an approval ends, and its id.

    run 5.0123456789abcdef0123, step /3/approval  <->  5.0123456789abcdef0123-3-approval

An id is fit for a command line and for a path of an URL. Only the numbers of steps and the word at the end are in such a step: nothing else has a dash.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

STEP_KIND: Final = "approval"
"""The last part of an approval's step."""

_ID = re.compile(rf"([0-9]+\.[0-9a-f]{{20}})((?:-[0-9]+)+-{STEP_KIND})", re.ASCII)


class Verdict(StrEnum):
    """What somebody says."""

    APPROVED = "approved"
    REJECTED = "rejected"


class ApprovalEnding(StrEnum):
    """How an approval ended. `withdrawn`: the run has given it up, or has ended."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


def approval_id(run: str, step: str) -> str:
    """The id of what a run asks at a step."""
    return run + step.replace("/", "-")


def run_and_step(approval: str) -> tuple[str, str] | None:
    """The run and the step behind an id; None if it is none."""
    found = _ID.fullmatch(approval)
    return None if found is None else (found[1], found[2].replace("-", "/"))


def is_approval(step: str) -> bool:
    """Whether a timer of this step is an approval's deadline."""
    return step.endswith(f"/{STEP_KIND}")
