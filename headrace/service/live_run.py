"""A run that is awake in this process: its interpreter, and what the shell is doing for it. A cache; the log has all that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headrace.service.definitions.determinism_guard import stepping
from headrace.service.engine.child import depth_of
from headrace.service.engine.interpreter import Interpreter
from headrace.service.engine.run_state import ChildBegan
from headrace.service.engine.step import CallStep, ChildStep, EmitStep
from headrace.service.engine.turn import Turn
from headrace.topics.command import Approve
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    StepsCancelled,
    TimerFired,
)
from headrace.topics.trace_context import kept_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.observability.traces import Contexts
    from headrace.service.definitions.workflow import Workflow
    from headrace.service.engine.limit import RunLimits
    from headrace.service.engine.run_state import RunState, Woke


class LiveRun:
    """`calls` are open tasks by reference; of these, `delayed` wait for their next attempt and `held` for a policy.

    `trace` is the context of the run's anchor span, `traceparent` and `tracestate` the same as headers.
    """

    __slots__ = (
        "_interpreter",
        "_loaded",
        "_said",
        "attempts",
        "calls",
        "closed",
        "delayed",
        "held",
        "over",
        "rests_since",
        "retries",
        "state",
        "timeout_at_ms",
        "timers",
        "trace",
        "traceparent",
        "tracestate",
    )

    def __init__(
        self,
        state: RunState,
        code: Workflow[Any, Any],
        *,
        contexts: Contexts,
        limits: RunLimits,
        timeout_at_ms: int | None,
        loaded: Callable[[str, str, str], object | None],
    ) -> None:
        start = state.start
        event = start.event
        self.state = state
        self.calls: dict[str, CallStep[Any]] = {}
        self.delayed: set[str] = set()
        self.held: set[str] = set()
        self.timers: dict[str, int] = {}  # when each was armed
        self.attempts, self.retries = _made_before(state) if state.history or state.tries else (0, 0)
        self.rests_since = 0.0  # by the loop's clock: when it last began to do nothing but wait
        self.timeout_at_ms = timeout_at_ms
        self.over = False  # it has said its end
        self.closed = False  # its coroutine was dropped; attempts of it may go on
        self._said: set[str] = set()  # steps that it has emitted or cancelled, and the log does not say so yet
        self._loaded = loaded  # asked for the workflows of children
        producer = kept_context(start.traceparent, start.tracestate)
        self.trace = contexts.anchor(state.id, producer, from_kafka=event is not None, awaited=start.awaited)
        self.traceparent = self.trace.traceparent
        self.tracestate = self.trace.state or None
        self._interpreter = Interpreter(
            code,
            run_id=state.id,
            key=start.key or (event.key if event is not None else None) or "",
            event=None if event is None else event.event(msgspec.json.decode(start.input)),
            raw_input=bytes(start.input),
            began_at_ms=state.began_at_ms,
            limits=limits,
            retried=state.retried,
            depth=depth_of(start),
        )

    def replay(self) -> Turn:
        """Begin, and notice the history."""
        with stepping(self.state.id) as guard:
            state = self.state
            turn = self._interpreter.replay(
                state.history, timers=state.sleeps, tried=state.tries, approvals=state.approvals
            )
        return self._judged(turn, guard.violation)

    def feed(self, record: Woke, at_ms: int) -> Turn:
        """Notice one more record."""
        match record:
            case AttemptSucceeded(step=step) | AttemptFailed(step=step):
                self.calls.pop(step, None)
                if self._said:
                    self._said.discard(step)
            case Emitted(step=step):
                self._said.discard(step)
                return self._interpreter.confirm(record, at_ms)
            case TimerFired(step=step):
                self.timers.pop(step, None)
                self._said.discard(step)
            case Approve(step=step):
                self.timers.pop(step, None)
                if self._said:
                    self._said.discard(step)
            case ChildBegan(step=step):
                self._said.discard(step)
            case StepsCancelled(steps=steps):
                for step in steps:
                    self.calls.pop(step, None)
                    self.timers.pop(step, None)
                    self._said.discard(step)
            case _:
                pass
        with stepping(self.state.id) as guard:
            turn = self._interpreter.feed(record, at_ms)
        return self._judged(turn, guard.violation)

    def waits(self) -> bool:
        """Nothing is being done for it now: it sleeps, or its tasks are delayed or held. One that has an outcome on its way to the log does not wait."""
        return len(self.calls) == len(self.delayed) + len(self.held) and not self._said and not self.over

    def undoes(self) -> bool:
        """A compensation is open."""
        return any(call.undoes is not None for call in self.calls.values())

    def close(self) -> None:
        """Drop the coroutine."""
        self.closed = True
        with stepping(self.state.id):
            self._interpreter.close()

    def _judged(self, turn: Turn, violation: Any) -> Turn:
        if violation is not None and turn.parked is None:
            return self._interpreter.park(str(violation))  # the body may have swallowed it
        for step in turn.issued:
            if isinstance(step, ChildStep) and self._loaded(*step.workflow.id) is None:
                namespace, name, version = step.workflow.id
                found = f"a child run of {namespace}/{name} version {version}, which this app does not define; import it where the app is loaded"
                return self._interpreter.park(found)
            if isinstance(step, EmitStep | ChildStep):
                self._said.add(step.ref)
        if turn.cancelled:
            self._said.update(turn.cancelled)
        if turn.ended is not None:
            self.over = True
        return turn


def _made_before(state: RunState) -> tuple[int, int]:
    """Attempts that the log knows of, and how many of them were repetitions."""
    numbers = [record.number for record, _ in state.history if isinstance(record, AttemptSucceeded | AttemptFailed)]
    failed = sum(tries.failed for tries in state.tries.values())
    return sum(numbers) + failed, sum(numbers) - len(numbers) + failed
