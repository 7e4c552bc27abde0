"""Attempts: from "this task is ready" to an outcome for the log. Holds them for breakers, pools and rate limits, runs them, judges what follows a failure.

One per process, for all partitions: pools, breakers and rate limits are the process's. Called by owners; calls them back with what ended.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.handlers.breaker import BreakerStatus
from headrace.handlers.dispatch import Dispatched, Dispatcher, DispatchStatistics, HeldReason, outcome_of
from headrace.handlers.result import AttemptCall, AttemptCancelled, AttemptError, AttemptOk
from headrace.handlers.result import AttemptEnd as HandlerEnd
from headrace.handlers.retry import Retry, RetryAfter, after_failure, fraction_of
from headrace.observability import told_process, told_run
from headrace.observability.label import BreakerResult, BreakerState, Ending
from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.errors import Cause
from headrace.topics.outcome import AttemptFailed, AttemptSucceeded

if TYPE_CHECKING:
    from headrace.handlers.attempt_group import AttemptGroup, RunningAttempt
    from headrace.handlers.breaker import Transition
    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.step import CallStep
    from headrace.service.live_run import LiveRun
    from headrace.service.settings import RetryDefaults
    from headrace.service.shared import Shared

AttemptEnd = Callable[[AttemptSucceeded | AttemptFailed], None]
"""Told what the log is to say of an attempt that is over. Not called for one that was cancelled."""

_ENDINGS = {Cause.TIMED_OUT: Ending.TIMED_OUT, Cause.DEADLINE: Ending.TIMED_OUT, Cause.BREAKER_OPEN: Ending.REJECTED}


class _Work:
    __slots__ = ("began_at_ms", "ended", "held", "id", "limited", "live", "number", "ready_at", "running", "step")

    def __init__(self, id_: int, ended: AttemptEnd, live: LiveRun, step: CallStep[Any], number: int) -> None:
        self.id = id_
        self.ended = ended
        self.live = live
        self.step = step
        self.number = number
        self.running: RunningAttempt | None = None
        self.held = False
        handler = step.handler
        self.limited = handler.breaker is not None or handler.pool is not None or handler.rate_limit is not None
        self.ready_at = perf_counter()
        self.began_at_ms = 0


class Attempts:
    """`start` and `cancel` never wait."""

    def __init__(self, shared: Shared, group: AttemptGroup) -> None:
        self._shared = shared
        self._group = group
        self._dispatcher: Dispatcher[int] = Dispatcher()
        self._ids = itertools.count()
        self._works: dict[tuple[str, str], _Work] = {}
        self._by_id: dict[int, _Work] = {}  # offered and not over
        self._ended_one = asyncio.Event()
        self._default_timeout_ms = shared.settings.defaults.timeout_ms
        self._default_retry = _default_retry(shared.settings.defaults.retry)
        for handler in shared.app.handlers:
            self._dispatcher.register(handler)

    def __len__(self) -> int:
        return len(self._by_id)

    def start(self, ended: AttemptEnd, live: LiveRun, step: CallStep[Any], number: int) -> None:
        """Make this attempt as soon as its policies allow. One that is being made already goes on, for the run as it is alive now."""
        key = (live.state.id, step.ref)
        work = self._works.get(key)
        if work is not None and work.number == number:
            work.live, work.step = live, step
            if work.held:
                live.held.add(step.ref)
            return
        work = _Work(next(self._ids), ended, live, step, number)
        self._works[key] = work
        self._by_id[work.id] = work
        if not work.limited:
            self._begin(work)
            return
        dispatched = self._dispatcher.offer(_now_ms(), work.id, step.handler, workflow=live.state.start.workflow)
        for held in dispatched.held:
            self._hold(work, held.reason)
        self._carry_out(dispatched)

    def makes(self, run: str, step: str) -> bool:
        """Whether an attempt of this task is running or held."""
        return (run, step) in self._works

    def cancel(self, run: str, step: str) -> None:
        """Stop it; its end makes no outcome."""
        work = self._works.pop((run, step), None)
        if work is None:
            return
        if work.held:
            work.live.held.discard(step)
        if work.running is not None:
            work.running.cancel()
            return
        self._shared.timers.disarm(("held", work.id))
        if self._dispatcher.remove(work.id):
            del self._by_id[work.id]
            self._set_alarm()

    def running_of(self, ended: AttemptEnd) -> list[tuple[str, str, int]]:
        """Run, step and number of the attempts that report there and whose handlers run."""
        return [
            (key[0], key[1], work.number)
            for key, work in self._works.items()
            if work.ended == ended and work.running is not None
        ]

    def give_up_waiting(self, ended: AttemptEnd) -> None:
        """Whoever reports there begins no attempt any more: what is held by a policy will be made elsewhere."""
        for (run, step), work in list(self._works.items()):
            if work.ended == ended and work.running is None:
                self.cancel(run, step)

    def cancel_all(self, ended: AttemptEnd) -> None:
        """Stop everything that reports there."""
        for (run, step), work in list(self._works.items()):
            if work.ended == ended:
                self.cancel(run, step)

    async def none_running(self, ended: AttemptEnd | None = None) -> None:
        """Return when no handler (that reports there) runs. Held attempts do not count."""
        while any(work.running is not None and (ended is None or work.ended == ended) for work in self._by_id.values()):
            self._ended_one.clear()
            await self._ended_one.wait()

    def statistics(self) -> DispatchStatistics:
        """A frozen snapshot of holds, pools and breakers."""
        return self._dispatcher.statistics(_now_ms())

    def in_progress(self) -> Iterator[tuple[str, str, bool]]:
        """Workflow and handler of every offered attempt, and whether the handler runs."""
        return (
            (work.live.state.start.workflow, work.step.handler.name, work.running is not None)
            for work in self._by_id.values()
        )

    def _hold(self, work: _Work, reason: HeldReason) -> None:
        """It waits, and the deadline of its Retry goes on."""
        work.held = True
        work.live.held.add(work.step.ref)
        deadline_ms = self._retry_of(work.step).deadline_ms
        breaker = work.step.handler.breaker
        if breaker is not None and reason is HeldReason.BREAKER:
            self._shared.observer.breaker_called(
                told_process.BreakerCalled(breaker=breaker.name, result=BreakerResult.HELD)
            )
        if deadline_ms is not None:
            due_at_ms = work.step.issued_at_ms + deadline_ms
            self._shared.timers.arm(("held", work.id), due_at_ms, lambda _key, _due: self._past_deadline(work))

    def _past_deadline(self, work: _Work) -> None:
        if self._dispatcher.remove(work.id):
            self._end(work, self._deadline_error(work))
            self._set_alarm()

    def _deadline_error(self, work: _Work) -> AttemptError:
        deadline_ms = self._retry_of(work.step).deadline_ms
        return AttemptError(
            cause=Cause.DEADLINE,
            error="TimeoutError",
            message=f"{work.step.handler.name} did not succeed within the deadline of its Retry, {deadline_ms} ms",
            retryable=False,
            ignored_by_breaker=True,
            duration_ms=0.0,
        )

    def _retry_of(self, step: CallStep[Any]) -> Retry:
        return step.handler.retry or self._default_retry

    def _carry_out(self, dispatched: Dispatched[int]) -> None:
        for transition in dispatched.transitions:
            self._shared.observer.breaker_changed(
                told_process.BreakerChanged(
                    breaker=transition.breaker,
                    before=BreakerState(transition.before),
                    after=BreakerState(transition.after),
                    reason=self._why(transition),
                )
            )
        for started in dispatched.started:
            work = self._by_id[started.attempt]
            limit = work.step.handler.rate_limit
            if limit is not None:
                self._shared.observer.rate_limit_passed(
                    told_process.RateLimitPassed(limiter=limit.name, wait_ms=started.held_ms)
                )
            self._begin(work)
        for refused in dispatched.refused:
            work = self._by_id[refused.attempt]
            if work.step.handler.breaker is not None:
                self._shared.observer.breaker_called(
                    told_process.BreakerCalled(breaker=work.step.handler.breaker.name, result=BreakerResult.REJECTED)
                )
            self._end(work, refused.error)
        if dispatched.transitions or dispatched.started or dispatched.held:
            self._set_alarm()

    def _why(self, transition: Transition) -> str:
        """What opened the breaker: its window, which stays as it was then."""
        if transition.after is not BreakerStatus.OPEN:
            return ""
        seen = next(each for each in self.statistics().breakers if each.name == transition.breaker)
        return f"of {seen.calls} calls, {seen.failed} failed and {seen.slow} were slow"

    def _set_alarm(self) -> None:
        wake_ms = self._dispatcher.next_wake_ms()
        if wake_ms is None:
            self._shared.timers.disarm("policies")
        else:
            due_at_ms = self._shared.clock.now_ms() + max(0, wake_ms - _now_ms()) + 1
            self._shared.timers.arm("policies", due_at_ms, self._wake)

    def _wake(self, _key: object, _due_at_ms: int) -> None:
        self._carry_out(self._dispatcher.wake(_now_ms()))
        self._set_alarm()

    def _begin(self, work: _Work) -> None:
        step, live = work.step, work.live
        run = live.state
        if work.held:
            work.held = False
            live.held.discard(step.ref)
            self._shared.timers.disarm(("held", work.id))
            if not live.closed:  # else the run itself waits for room, and must not take the slot that it waits for
                self._shared.admission.active(run.id, run.start.workflow)
        handler = step.handler
        timeout_ms = handler.timeout_ms if handler.timeout_ms is not None else self._default_timeout_ms
        cause = Cause.TIMED_OUT
        now_ms = self._shared.clock.now_ms()
        deadline_ms = self._retry_of(step).deadline_ms
        if deadline_ms is not None:
            left_ms = step.issued_at_ms + deadline_ms - now_ms
            if left_ms < timeout_ms:
                timeout_ms, cause = max(1, left_ms), Cause.DEADLINE
        work.began_at_ms = now_ms
        live.attempts += 1
        call = AttemptCall(
            run_id=run.id,
            workflow=run.start.workflow,
            task=step.ref,
            number=work.number,
            idempotency_key=idempotency_key(run, step),
            arguments=step.arguments,
            timeout_ms=timeout_ms,
            now_ms=now_ms,
            cause_on_timeout=cause,
            anchor=live.traceparent,
            tracestate=live.tracestate,
        )
        if self._shared.listens_to_starts:
            self._shared.observer.attempt_started(
                told_run.AttemptStarted(
                    run=run.id,
                    workflow=run.start.workflow,
                    step=step.ref,
                    handler=handler.name,
                    number=work.number,
                    traceparent=work.live.traceparent,
                )
            )
        maybe(FaultPoint.ATTEMPT_BEGINNING if step.undoes is None else FaultPoint.UNDOING)
        work.running = self._group.start(handler, call, lambda _call, end: self._ended(work, end))
        maybe(FaultPoint.ATTEMPT_BEGUN)

    def _ended(self, work: _Work, end: HandlerEnd) -> None:
        work.running = None  # they refer to each other
        maybe(FaultPoint.ATTEMPT_ENDED)
        if not work.limited:
            self._end(work, end)
        else:
            dispatched = self._dispatcher.complete(_now_ms(), work.id, outcome_of(end), end.duration_ms)
            breaker = work.step.handler.breaker
            if breaker is not None:
                self._tell_breaker(breaker, end)
            self._end(work, end)
            self._carry_out(dispatched)
        self._ended_one.set()

    def _tell_breaker(self, breaker: Any, end: HandlerEnd) -> None:
        match end:
            case AttemptOk(duration_ms=duration_ms):
                slow = duration_ms > breaker.slow_call_ms
                result = BreakerResult.SLOW if slow else BreakerResult.SUCCEEDED
            case AttemptError(ignored_by_breaker=True) | AttemptCancelled():
                result = BreakerResult.IGNORED
            case _:
                result = BreakerResult.FAILED
        self._shared.observer.breaker_called(told_process.BreakerCalled(breaker=breaker.name, result=result))

    def _end(self, work: _Work, end: HandlerEnd) -> None:
        """It is over: tell the owner what to write, unless it was cancelled."""
        live, step = work.live, work.step
        key = (live.state.id, step.ref)
        self._by_id.pop(work.id, None)
        cancelled = self._works.get(key) is not work
        if not cancelled:
            del self._works[key]
        if work.held:
            live.held.discard(step.ref)
            self._shared.timers.disarm(("held", work.id))
        if isinstance(end, AttemptCancelled) or cancelled:
            self._tell(work, end, Ending.CANCELLED, None)
            return
        if isinstance(end, AttemptOk):
            self._tell(work, end, Ending.SUCCEEDED, None)
            outcome: AttemptSucceeded | AttemptFailed = AttemptSucceeded(
                run=live.state.id,
                step=step.ref,
                handler=step.handler.name,
                number=work.number,
                result=msgspec.Raw(end.result),
                started_at_ms=work.began_at_ms,
                duration_ms=round(end.duration_ms, 3),
            )
        else:
            outcome = self._failed(work, end)
            self._tell(work, end, _ENDINGS.get(end.cause, Ending.FAILED), outcome.retry_after_ms)
            if outcome.retry_after_ms is not None:
                live.retries += 1
        if step.undoes is not None and (not isinstance(outcome, AttemptFailed) or outcome.retry_after_ms is None):
            self._tell_undone(work, Ending.SUCCEEDED if isinstance(end, AttemptOk) else Ending.FAILED)
        work.ended(outcome)

    def _failed(self, work: _Work, error: AttemptError) -> AttemptFailed:
        step = work.step
        run_id = work.live.state.id
        decision = after_failure(
            self._retry_of(step),
            attempt_number=work.number,
            retryable=error.retryable,
            fraction=fraction_of(run_id, step.ref, work.number),
            elapsed_ms=max(0, self._shared.clock.now_ms() - step.issued_at_ms),
            after_ms=error.retry_after_ms,
        )
        return AttemptFailed(
            run=run_id,
            step=step.ref,
            handler=step.handler.name,
            number=work.number,
            cause=error.cause,
            error=error.error,
            message=error.message,
            started_at_ms=work.began_at_ms or self._shared.clock.now_ms(),
            duration_ms=round(error.duration_ms, 3),
            retry_after_ms=decision.delay_ms if isinstance(decision, RetryAfter) else None,
        )

    def _tell_undone(self, work: _Work, ending: Ending) -> None:
        run = work.live.state
        self._shared.observer.compensation_ended(
            told_run.CompensationEnded(
                run=run.id,
                workflow=run.start.workflow,
                step=work.step.ref,
                handler=work.step.handler.name,
                ending=ending,
                traceparent=work.live.traceparent,
            )
        )

    def _tell(self, work: _Work, end: HandlerEnd, ending: Ending, retry_after_ms: int | None) -> None:
        run = work.live.state
        error = end if isinstance(end, AttemptError) else None
        self._shared.observer.attempt_ended(
            told_run.AttemptEnded(
                run=run.id,
                workflow=run.start.workflow,
                step=work.step.ref,
                handler=work.step.handler.name,
                number=work.number,
                ending=ending,
                started_at_ms=work.began_at_ms,
                duration_ms=end.duration_ms,
                start_delay_ms=max(0.0, (perf_counter() - work.ready_at) * 1000 - end.duration_ms),
                cause=error.cause if error is not None else None,
                error=error.error if error is not None else "",
                message=error.message if error is not None else "",
                retry_after_ms=retry_after_ms,
                compensation=work.step.undoes is not None,
                traceparent=work.live.traceparent,
                tracestate=work.live.tracestate,
            )
        )


def idempotency_key(run: RunState, step: CallStep[Any]) -> str:
    """The same for every attempt of a task, and for those of the run's retries."""
    if run.retried is None:
        return f"{run.id}{step.ref}"
    return run.retried.key(step.undoes or step.ref, step.ref)


def _default_retry(settings: RetryDefaults) -> Retry:
    return Retry(
        attempts=settings.attempts,
        backoff=settings.backoff,
        delay=timedelta(milliseconds=settings.delay_ms),
        cap=timedelta(milliseconds=settings.cap_ms),
        deadline=None if settings.deadline_ms is None else timedelta(milliseconds=settings.deadline_ms),
    )


def _now_ms() -> int:
    return int(monotonic() * 1000)
