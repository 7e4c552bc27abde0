"""Approvals: what a run asks people, what is kept of it while it is open, and what the workflow gets.

    asked ──approve, before the deadline, by somebody with a role──► approved, rejected
      ├────the deadline's timer fires──────────────────────────────► expired
      └────the step is given up, or the run ends───────────────────► withdrawn

The first of these in the log wins. A decision that was made stays made: a retry of the run has it too (`retry.py`); one that expired is asked anew.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headrace.topics.approval import Verdict

ROLES_MAX = 100
"""Roles of one approval, or of who decides."""

ROLE_CHARS_MAX = 200


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What became of `run.approval`. `by` is who decided, "" if nobody did in time; `at` is when, by the run's clock, in UTC."""

    decision: Literal["approved", "rejected", "expired"]
    by: str
    at: datetime
    note: str = ""

    @property
    def approved(self) -> bool:
        """Whether somebody has said yes."""
        return self.decision == "approved"


class ApprovalRequest(msgspec.Struct, frozen=True, gc=False):
    """An approval that is open, as the partition's state has it. `roles` empty: anybody may decide; `due_at_ms` None: for ever."""

    run: str
    step: str
    workflow: str
    namespace: str
    key: str | None  # of the run
    title: str
    roles: tuple[str, ...]
    requested_at_ms: int
    due_at_ms: int | None


class Decision(msgspec.Struct, frozen=True, tag_field="is", tag="decision", omit_defaults=True, gc=False):
    """A decision that a retry has from the run before it. `run` is the one that had asked."""

    run: str
    step: str
    decision: Verdict
    by: str
    at_ms: int
    note: str = ""
    roles: tuple[str, ...] = ()


def may_decide(wanted: Collection[str], has: Collection[str]) -> bool:
    """Whether who has these roles may decide where those are wanted."""
    return not wanted or not set(wanted).isdisjoint(has)


def decided(verdict: Verdict, by: str, at_ms: int, note: str) -> Approval:
    """What the workflow gets of a decision."""
    word: Literal["approved", "rejected"] = "approved" if verdict is Verdict.APPROVED else "rejected"
    return Approval(decision=word, by=by, at=_time(at_ms), note=note)


def expired(at_ms: int) -> Approval:
    """What the workflow gets when nobody has decided in time."""
    return Approval(decision="expired", by="", at=_time(at_ms))


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
