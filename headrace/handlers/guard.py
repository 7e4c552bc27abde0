"""One attempt in, one result out: the boundary around user code.

Whatever a handler does (raise SystemExit, return a set, never return) becomes a value. It must never retry, wait for
a breaker or touch the log: those are the fold's, the dispatcher's and the owner's. Called by `attempt_group.py`,
which owns the asyncio tasks and gives up handlers that swallow their cancellation.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.handlers.attempt import Attempt, enter_attempt, leave_attempt
from headrace.handlers.message import message_of, name_of
from headrace.handlers.payload import PayloadError, PayloadTooLarge
from headrace.handlers.result import Abandoned, AttemptCall, AttemptError, AttemptOk, AttemptResult
from headrace.handlers.retry import is_retryable, least_wait_ms
from headrace.handlers.time_limit import TimeLimits
from headrace.topics.errors import Cause, DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.handlers.definition import Handler
    from headrace.handlers.threads import HandlerThreads
    from headrace.handlers.time_limit import TimeLimit

    AnyHandler = Handler[*tuple[Any, ...], Any]


class Guard:
    """Makes attempts. One per process: it holds the threads and the limits.

    `result_bytes_max` bounds an encoded result; `abandoned` is told of each handler that runs on, once, and must not
    raise. `clock`, in seconds, is for durations only (uvloop's own counts whole milliseconds); a simulation gives its
    loop's. `mask` hides secrets in what a handler's exception says.
    """

    __slots__ = ("_limits", "_mask", "abandoned", "clock", "result_bytes_max", "threads")

    def __init__(
        self,
        *,
        threads: HandlerThreads,
        result_bytes_max: int,
        abandoned: Callable[[Abandoned], None],
        clock: Callable[[], float] = time.perf_counter,
        mask: Callable[[str], str] = str,
    ) -> None:
        self.threads = threads
        self.result_bytes_max = result_bytes_max
        self.abandoned = abandoned
        self.clock = clock
        self._mask = mask
        self._limits = TimeLimits(clock)

    async def invoke(
        self,
        definition: AnyHandler,
        call: AttemptCall,
        timed_out: Callable[[], None] | None = None,
        task: Callable[[], asyncio.Task[Any]] | None = None,
        asked: Callable[[], bool] | None = None,
    ) -> AttemptResult:
        """Run one attempt in the present asyncio.Task. Raises only CancelledError, when the owner asked.

        `timed_out` is called when the attempt's time is over and it was cancelled: from then on the caller may stop waiting.
        `task` tells the present task to who knows it: asyncio takes microseconds to find out.
        `asked` tells whether the owner has cancelled it. Who cannot say leaves it to asyncio's count of cancellations, which
        is one too high after a TaskGroup of the handler's has failed (mended in Python 3.13).
        """
        limit = self._limits.set(call.timeout_ms, asyncio.current_task() if task is None else task(), timed_out)
        owner_asked = limit.owner_asked if asked is None else asked
        token = enter_attempt(_attempt(call))
        try:
            try:
                arguments = definition.arguments.decode(call.arguments)
            except PayloadError as error:  # never called, so it says nothing about what is called
                return msgspec.structs.replace(self._failure(definition, call, error, limit), ignored_by_breaker=True)
            if definition.is_async:
                value = await definition.function(*arguments)
            else:
                value = await self._in_thread(definition, call, arguments, limit)
            if limit.expired:  # it swallowed the cancellation: too late is too late
                return self.timeout_of(definition, call, limit.elapsed_ms())
            return self._encoded(definition, value, limit)
        except asyncio.CancelledError as error:
            if owner_asked():
                raise
            return self._failure(definition, call, error, limit)
        except BaseException as error:
            if owner_asked():  # it failed while it was being cancelled
                raise asyncio.CancelledError from error
            return self._failure(definition, call, error, limit)
        finally:
            limit.lift()
            leave_attempt(token)

    def timeout_of(self, definition: AnyHandler, call: AttemptCall, duration_ms: float) -> AttemptError:
        """The failure of an attempt whose time is over."""
        error = TimeoutError(f"{definition.name} gave no result within {call.timeout_ms} ms")
        retryable = call.cause_on_timeout is not Cause.DEADLINE and is_retryable(definition.retry, error)
        return self._error(definition, call.cause_on_timeout, error, retryable=retryable, duration_ms=duration_ms)

    def failure_of(
        self, definition: AnyHandler, cause: Cause, error: BaseException, duration_ms: float
    ) -> AttemptError:
        """The failure of an attempt that ended with `error`, which its Retry judges."""
        retryable = is_retryable(definition.retry, error)
        return self._error(definition, cause, error, retryable=retryable, duration_ms=duration_ms)

    def _error(
        self,
        definition: AnyHandler,
        cause: Cause,
        error: BaseException,
        *,
        retryable: bool,
        duration_ms: float,
    ) -> AttemptError:
        message = self._mask(message_of(error))
        try:
            retry_after_ms = least_wait_ms(error) if retryable else None
        except DefinitionError as wrong:  # the handler's own `after` is no duration: the failure itself counts more
            retry_after_ms, message = None, f"{message[:500]} ({self._mask(message_of(wrong))[:400]})"
        breaker = definition.breaker
        return AttemptError(
            cause=cause,
            error=name_of(error),
            message=message,
            retryable=retryable,
            retry_after_ms=retry_after_ms,
            ignored_by_breaker=breaker is not None and isinstance(error, breaker.ignore),
            duration_ms=duration_ms,
        )

    def _encoded(self, definition: AnyHandler, value: object, limit: TimeLimit) -> AttemptResult:
        try:
            raw = definition.result.encode(value, limit_bytes=self.result_bytes_max)
        except PayloadError as error:
            if inspect.iscoroutine(value):  # a `def` that returned one: nobody will await it
                value.close()
            cause = Cause.TOO_LARGE if isinstance(error, PayloadTooLarge) else Cause.BAD_RESULT
            return self._error(definition, cause, error, retryable=False, duration_ms=limit.elapsed_ms())
        return AttemptOk(raw, limit.elapsed_ms())

    def _failure(
        self, definition: AnyHandler, call: AttemptCall, error: BaseException, limit: TimeLimit
    ) -> AttemptError:
        if limit.expired:
            return self.timeout_of(definition, call, limit.elapsed_ms())
        cause = Cause.RAISED
        if isinstance(error, asyncio.CancelledError):
            cause = Cause.CANCELLED_ITSELF
            if not error.args:
                error = asyncio.CancelledError("the handler cancelled its own task")
        return self.failure_of(definition, cause, error, limit.elapsed_ms())

    async def _in_thread(
        self, definition: AnyHandler, call: AttemptCall, arguments: tuple[object, ...], limit: TimeLimit
    ) -> object:
        job = self.threads.submit(functools.partial(definition.function, *arguments))
        try:
            return await job.result()
        except asyncio.CancelledError:
            if self.threads.abandon(job):
                self.abandoned(abandoned_of(definition, call, limit.elapsed_ms(), in_thread=True))
            raise


def abandoned_of(definition: AnyHandler, call: AttemptCall, after_ms: float, *, in_thread: bool) -> Abandoned:
    """Name a handler that runs on."""
    return Abandoned(
        handler=definition.name,
        place=definition.place,
        run_id=call.run_id,
        workflow=call.workflow,
        task=call.task,
        number=call.number,
        in_thread=in_thread,
        after_ms=after_ms,
        anchor=call.anchor,
    )


def _attempt(call: AttemptCall) -> Attempt:
    return Attempt(
        idempotency_key=call.idempotency_key,
        number=call.number,
        run_id=call.run_id,
        task=call.task,
        deadline_ms=call.now_ms + call.timeout_ms,
        anchor=call.anchor,
        tracestate=call.tracestate,
    )
