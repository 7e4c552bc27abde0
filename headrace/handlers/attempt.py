"""The attempt being made, as a handler sees it.

The guard sets it around the call; threads see it because they run in a copy of the attempt's context.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.topics.trace_context import attempt_traceparent

if TYPE_CHECKING:
    from contextvars import Token

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt being made: the `number`th of its task, from 1.

    `idempotency_key` is the task's: the same over attempts, restarts and owners; pass it on to whatever is called. `task` is the task's place in its
    run, such as `/3/charge`. `anchor` and `tracestate` are the trace of the run; None: it has none.
    """

    idempotency_key: str
    number: int
    run_id: str
    task: str
    deadline_ms: int  # milliseconds since 1970, when the attempt times out
    anchor: str | None = None
    tracestate: str | None = None

    @property
    def traceparent(self) -> str | None:
        """What calls made by this attempt carry: its own span in the run's trace. None without a trace."""
        return None if self.anchor is None else attempt_traceparent(self.run_id, self.task, self.number, self.anchor)

    @property
    def deadline(self) -> datetime:
        """When the attempt times out, in UTC."""
        return _EPOCH + timedelta(milliseconds=self.deadline_ms)


_current: Final[ContextVar[Attempt]] = ContextVar("headrace_attempt")


def current_attempt() -> Attempt:
    """The attempt that calls this, in coroutines and threads. LookupError outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise LookupError("No attempt is being made here; current_attempt() is for handlers.") from None


def enter_attempt(attempt: Attempt) -> Token[Attempt]:
    """Make it the current one, until `leave_attempt` with the token. For the guard."""
    return _current.set(attempt)


def leave_attempt(token: Token[Attempt]) -> None:
    """Make current what was before."""
    _current.reset(token)
