"""When a failed attempt is followed by another, and after which wait.

Pure: the wait is a timer in the run log, its chance comes from the attempt's identity, so every replay agrees.
`is_retryable` and `least_wait_ms` are the guard's, which saw the live exception; `after_failure` is called by the
fold with what was recorded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import msgspec

from headrace.handlers.duration import Duration, milliseconds
from headrace.handlers.policy import Errors, Field
from headrace.topics.error_group import leaves
from headrace.topics.errors import NonRetryable, Rejected, Retryable, Transient

Backoff = Literal["constant", "linear", "exponential"]

_BACKOFFS: Final = ("constant", "linear", "exponential")
_DOUBLINGS_MAX: Final = 62  # 1 ms doubled so often is longer than any cap
_FRACTION_BITS: Final = 53  # a float's


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often a task is tried, and how long is waited in between.

    `attempts` counts the first: 1 is no retry. Wait n = u * min(cap, delay(n)), 0 <= u < 1 (full jitter), where
    `delay(n)` is delay, delay * n or delay * 2 ** (n - 1), as `backoff` says; a delay of 0 waits not at all. `deadline`
    spans all attempts and waits, from when the task was ready; None: no limit. `on` and `never` are compared with what
    the handler raised; `never` wins.
    """

    attempts: int
    backoff: Backoff
    delay_ms: int
    cap_ms: int
    deadline_ms: int | None
    on: Errors
    never: Errors

    def __init__(
        self,
        *,
        attempts: int = 4,
        backoff: Backoff = "exponential",
        delay: Duration = "200ms",
        cap: Duration = "30s",
        deadline: Duration | None = None,
        on: Errors = (Exception,),
        never: Errors = (),
    ) -> None:
        """DefinitionError (HR2030, HR2035) names the field."""
        if type(attempts) is not int or attempts < 1:
            raise _field("attempts", attempts).refused("it is a whole number from 1; 1 means no retry")
        if backoff not in _BACKOFFS:
            raise _field("backoff", backoff).refused(f"it is one of {', '.join(_BACKOFFS)}")
        put = object.__setattr__
        put(self, "attempts", attempts)
        put(self, "backoff", backoff)
        put(self, "delay_ms", milliseconds(delay, name="Retry.delay", zero=True))
        put(self, "cap_ms", milliseconds(cap, name="Retry.cap", zero=True))
        put(self, "deadline_ms", None if deadline is None else milliseconds(deadline, name="Retry.deadline"))
        put(self, "on", _field("on", on).errors())
        put(self, "never", _field("never", never).errors())
        if self.delay_ms > self.cap_ms:
            raise _field("delay", delay).refused(
                f"it is longer than cap={cap!r}, so it would never be waited; raise cap"
            )


class RetryAfter(msgspec.Struct, frozen=True):
    """Try again after `delay_ms`, which may be 0."""

    delay_ms: int


class GiveUpReason(StrEnum):
    """Why no attempt follows."""

    NOT_RETRYABLE = "not_retryable"
    ATTEMPTS = "attempts"
    DEADLINE = "deadline"


class GiveUp(msgspec.Struct, frozen=True):
    """The task has failed for good."""

    reason: GiveUpReason


def after_failure(
    retry: Retry, *, attempt_number: int, retryable: bool, fraction: float, elapsed_ms: int, after_ms: int | None = None
) -> RetryAfter | GiveUp:
    """Decide what follows the failure of attempt `attempt_number` (from 1).

    `elapsed_ms` is since the task became ready, held time and waits included; `fraction` is `fraction_of(...)`;
    `after_ms` is the least wait the handler asked for, which the cap does not shorten. A wait that would reach the
    deadline is not begun.
    """
    if not retryable:
        return GiveUp(GiveUpReason.NOT_RETRYABLE)
    if attempt_number >= retry.attempts:
        return GiveUp(GiveUpReason.ATTEMPTS)
    delay_ms = int(fraction * _ceiling_ms(retry, attempt_number))
    if after_ms is not None:
        delay_ms = max(delay_ms, after_ms)
    if retry.deadline_ms is not None and elapsed_ms + delay_ms >= retry.deadline_ms:
        return GiveUp(GiveUpReason.DEADLINE)
    return RetryAfter(delay_ms)


def _ceiling_ms(retry: Retry, attempt_number: int) -> int:
    if retry.backoff == "constant":
        factor = 1
    elif retry.backoff == "linear":
        factor = attempt_number
    else:
        factor = 1 << min(attempt_number - 1, _DOUBLINGS_MAX)
    return min(retry.cap_ms, retry.delay_ms * factor)


def fraction_of(run_id: str, task: str, number: int) -> float:
    """The chance in the wait after an attempt: 0 <= u < 1, from its identity alone, the same in every process."""
    digest = hashlib.sha256(f"retry\0{run_id}\0{task}\0{number}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _FRACTION_BITS)) / (1 << _FRACTION_BITS)


def is_retryable(retry: Retry | None, error: BaseException) -> bool:
    """Whether what a handler raised allows another attempt.

    NonRetryable and Rejected: no. Then Retryable: yes. Then `never`, then `on`. A group is judged by what is in it:
    one that forbids is enough, and `on` must fit the group itself or all in it. What is no Exception (SystemExit,
    say) is judged as a bare Exception. `retry` None: as `Retry()`, for the settings name no errors.
    """
    found = list(leaves(error))
    if any(isinstance(leaf, (NonRetryable, Rejected)) for leaf in found):
        return False
    if any(isinstance(leaf, Retryable) for leaf in found):
        return True
    if retry is None:
        return True
    if isinstance(error, retry.never) or any(_fits(leaf, retry.never) for leaf in found):
        return False
    return isinstance(error, retry.on) or all(_fits(leaf, retry.on) for leaf in found)


def least_wait_ms(error: BaseException) -> int | None:
    """The longest least wait that the error, or one in its group, asks for. DefinitionError: an `after` that is no
    duration.
    """
    waits = [wait for leaf in leaves(error) if (wait := _asked_wait_ms(leaf)) is not None]
    return max(waits, default=None)


def _asked_wait_ms(error: BaseException) -> int | None:
    if isinstance(error, Retryable) and error.after is not None:
        return milliseconds(error.after, name="Retryable.after", zero=True)
    return error.retry_after_ms if isinstance(error, Transient) else None


def _fits(error: BaseException, kinds: Errors) -> bool:
    return isinstance(error, kinds) if isinstance(error, Exception) else Exception in kinds


def _field(field: str, given: object) -> Field:
    return Field("Retry", field, given, code="HR2035")
