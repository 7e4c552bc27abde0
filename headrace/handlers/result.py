"""What goes into an attempt and what comes out of it.

Values only. The owner makes an `AttemptCall`, the guard answers with an `AttemptResult`, which the owner writes to
the run log.
"""

from __future__ import annotations

import msgspec

from headrace.topics.errors import Cause


class AttemptCall(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt to make. `arguments` is a JSON array; `now_ms` is milliseconds since 1970 at the start of the
    attempt.

    `timeout_ms` is what remains for it: the handler's timeout, or less if the deadline of its `Retry` comes first;
    then `cause_on_timeout` is DEADLINE, which no retry follows.
    """

    run_id: str
    workflow: str
    task: str
    number: int
    idempotency_key: str
    arguments: bytes
    timeout_ms: int
    now_ms: int
    cause_on_timeout: Cause = Cause.TIMED_OUT
    anchor: str | None = None  # the `traceparent` of the run's anchor span
    tracestate: str | None = None


class AttemptOk(msgspec.Struct, frozen=True, gc=False):
    """It returned. `result` is JSON that fits the handler's annotation."""

    result: bytes
    duration_ms: float


class AttemptError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """It failed. `message` is for people: one line, at most 1 kB; no code branches on it.

    `retry_after_ms` is the least wait that was asked for; None: none was.
    """

    cause: Cause
    error: str
    message: str
    retryable: bool
    ignored_by_breaker: bool
    duration_ms: float
    retry_after_ms: int | None = None


class AttemptCancelled(msgspec.Struct, frozen=True):
    """The owner cancelled it. No outcome: nothing is written."""

    duration_ms: float


AttemptResult = AttemptOk | AttemptError
AttemptEnd = AttemptOk | AttemptError | AttemptCancelled


class Abandoned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A handler that runs on after its attempt is over: it swallowed its cancellation, or it is a thread, which
    nobody can stop.
    """

    handler: str
    place: str
    run_id: str
    workflow: str
    task: str
    number: int
    in_thread: bool
    after_ms: float  # how long it had run when it was given up
    anchor: str | None = None  # as in its `AttemptCall`
