"""Every error of Headrace, in one tree, split by what to do next.

Public errors (`DefinitionError`, `NonRetryable`, `Retryable`, `TaskFailed`, `Cancelled`, `NotDeterministic`) are re-exported by `headrace`.
Codes are stable and never reused; `docs/errors.md` has a line for each.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


class HeadraceError(Exception):
    """The root. `code` is an HR number of docs/errors.md; `why` and `do` complete the message for people."""

    code: str = "HR9000"

    def __init__(self, message: str, *, code: str | None = None, why: str = "", do: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.do = do
        if code is not None:
            self.code = code

    def report(self) -> str:
        """What happened, why, what to do: up to three lines, the first with the code."""
        lines = [f"{self.code}  {self.message}"]
        if self.why:
            lines.append(f"Why     {self.why}")
        if self.do:
            lines.append(f"Do      {self.do}")
        return "\n".join(lines)


class Transient(HeadraceError):
    """Try again; `retry_after_ms` is the least wait, in milliseconds, if one is known."""

    def __init__(
        self, message: str, *, code: str | None = None, why: str = "", do: str = "", retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message, code=code, why=why, do=do)
        self.retry_after_ms = retry_after_ms


class Rejected(HeadraceError):
    """This input can never work: a dead letter or a 4xx."""


class Fatal(HeadraceError):
    """Stop the partition (or the process) before harm: ownership lost, invariant broken, settings refused."""


class DefinitionError(HeadraceError):
    """A handler, workflow or app is wrong. Raised by a decorator or on loading the app."""

    code = "HR2000"


class SettingsError(HeadraceError):
    """A setting, topic or port is wrong at start; the process ends with exit code 7."""

    code = "HR1000"


class NonRetryable(HeadraceError):
    """Raised by a handler: no further attempt."""

    code = "HR4001"


class Retryable(HeadraceError):
    """Raised by a handler: again, whatever `on` and `never` say, and not before `after` (None: as `Retry` says). The number of attempts still holds."""

    code = "HR4002"

    def __init__(self, message: str, *, after: str | timedelta | None = None) -> None:
        super().__init__(message)
        self.after = after


class Cause(StrEnum):
    """Why an attempt, and with the last one its task, failed. A closed set: fit for a metric label."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    CANCELLED_ITSELF = "cancelled_itself"
    BAD_RESULT = "bad_result"
    TOO_LARGE = "too_large"
    BREAKER_OPEN = "breaker_open"
    DEADLINE = "deadline"
    OUTPUT_REFUSED = "output_refused"
    CANCELLED = "cancelled"  # a child run was, by somebody else
    KEY_HELD = "key_held"  # a child run never began: another one has its key


class TaskFailed(HeadraceError):
    """Raised in a workflow that awaits a task that failed for good. It carries text, never a class of the user's.

    `task` is its place in the run, such as `/3/charge`; `error` the class that the last of `attempts` raised, as text; `message` what it said.
    """

    code = "HR4003"

    def __init__(self, *, task: str, handler: str, cause: Cause, error: str, message: str, attempts: int) -> None:
        super().__init__(f"Task {task} failed after {attempts} attempt(s): {cause}: {error}: {message}")
        self.task = task
        self.handler = handler
        self.cause = cause
        self.error = error
        self.message = message
        self.attempts = attempts


class ChildFailed(TaskFailed):
    """Raised in a workflow that awaits a child run that did not succeed.

    `child` is the run's id, `status` how it ended; `handler` is the name of its workflow, `error` and `message` are what it ended with.
    """

    code = "HR4004"

    def __init__(
        self, *, task: str, workflow: str, child: str, status: str, cause: Cause, error: str, message: str
    ) -> None:
        super().__init__(task=task, handler=workflow, cause=cause, error=error, message=message, attempts=1)
        self.args = (f"Child run {child} of {workflow}, begun at {task}, ended {status}: {error}: {message}",)
        self.child = child
        self.status = status


class Cancelled(BaseException):
    """Awaiting a cancelled step; also thrown into a branch that `gather`, `race` or `map` gave up."""


class NotDeterministic(BaseException):
    """A workflow body did what it may not do. Swallowing it does not save the run: the run is parked."""

    def __init__(self, what: str, instead: str = "") -> None:
        super().__init__(f"{what}{'; use ' + instead if instead else ''}")
        self.what = what
        self.instead = instead
