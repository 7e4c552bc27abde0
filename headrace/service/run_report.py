"""What the observer is told of a run: facts of its state, in the observer's words. Called by `awake_runs.py`, once for each thing that happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.observability import told_run
from headrace.observability.label import TriggerKind
from headrace.topics.approval import approval_id

if TYPE_CHECKING:
    from headrace.service.engine.approval import ApprovalRequest
    from headrace.service.engine.instruction import Decided
    from headrace.service.engine.run_state import RunState
    from headrace.service.live_run import LiveRun
    from headrace.topics.outcome import RunEnded, RunParked
    from headrace.topics.trace_context import TraceContext


def started(live: LiveRun, now_ms: int) -> told_run.RunStarted:
    """It was admitted for the first time."""
    run = live.state
    start = run.start
    event = start.event
    return told_run.RunStarted(
        run=run.id,
        workflow=start.workflow,
        version=start.version,
        trigger=TriggerKind(start.trigger),
        started_at_ms=run.started_at_ms,
        key=start.key,
        topic=event.topic if event is not None else None,
        partition=event.partition if event is not None else None,
        offset=event.offset if event is not None else None,
        event_id=event.id if event is not None else None,
        parent=start.parent.run if start.parent is not None else None,
        start_delay_ms=max(0, now_ms - (start.event_at_ms or run.started_at_ms)),
        traceparent=live.traceparent,
        producer_traceparent=start.traceparent,
        tracestate=live.tracestate,
    )


def finished(live: LiveRun, ended: RunEnded, at_ms: int) -> told_run.RunFinished:
    """Its terminal record was read back at `at_ms`."""
    return _finished(live.state, ended, at_ms, live.traceparent, live.tracestate, live.attempts, live.retries)


def finished_unseen(run: RunState, anchor: TraceContext, ended: RunEnded, at_ms: int) -> told_run.RunFinished:
    """The same of a run that is not awake here: its attempts were not counted."""
    return _finished(run, ended, at_ms, anchor.traceparent, anchor.state or None)


def _finished(
    run: RunState,
    ended: RunEnded,
    at_ms: int,
    traceparent: str,
    tracestate: str | None,
    attempts: int = 0,
    retries: int = 0,
) -> told_run.RunFinished:
    return told_run.RunFinished(
        run=run.id,
        workflow=run.start.workflow,
        status=ended.status,
        started_at_ms=run.started_at_ms,
        duration_ms=at_ms - run.started_at_ms,
        key=run.start.key,
        version=run.start.version,
        attempts=attempts,
        retries=retries,
        error=ended.error,
        message=ended.message,
        failed_step=ended.failed_step,
        traceparent=traceparent,
        tracestate=tracestate,
    )


def parked(run: RunState, why: RunParked, traceparent: str) -> told_run.RunParked:
    """It was taken out of progress."""
    return told_run.RunParked(
        run=run.id,
        workflow=run.start.workflow,
        reason=why.reason,
        step=why.step,
        expected=why.expected,
        found=why.found,
        traceparent=traceparent,
    )


def held(run: RunState, traceparent: str) -> told_run.RunHeld:
    """The version of its workflow is not loaded here."""
    start = run.start
    return told_run.RunHeld(run=run.id, workflow=start.workflow, version=start.version, traceparent=traceparent)


def resumed(run: RunState, traceparent: str) -> told_run.RunResumed:
    """It was parked, and goes on."""
    return told_run.RunResumed(run=run.id, workflow=run.start.workflow, traceparent=traceparent)


def timer_armed(live: LiveRun, step: str, due_at_ms: int) -> told_run.TimerArmed:
    """It begins to sleep."""
    run = live.state
    return told_run.TimerArmed(
        run=run.id, workflow=run.start.workflow, step=step, due_at_ms=due_at_ms, traceparent=live.traceparent
    )


def timer_fired(live: LiveRun, step: str, armed_at_ms: int, due_at_ms: int, at_ms: int) -> told_run.TimerFired:
    """A sleep is over: its outcome was read back at `at_ms`."""
    run = live.state
    return told_run.TimerFired(
        run=run.id,
        workflow=run.start.workflow,
        step=step,
        armed_at_ms=armed_at_ms,
        due_at_ms=due_at_ms,
        late_ms=max(0, at_ms - due_at_ms),
        traceparent=live.traceparent,
        tracestate=live.tracestate,
    )


def requested(run: RunState, asked: ApprovalRequest, anchor: TraceContext) -> told_run.ApprovalRequested:
    """It waits for somebody."""
    return told_run.ApprovalRequested(
        run=run.id,
        workflow=asked.workflow,
        step=asked.step,
        approval=approval_id(run.id, asked.step),
        roles=asked.roles,
        due_at_ms=asked.due_at_ms,
        traceparent=anchor.traceparent,
    )


def decided(over: Decided, anchor: TraceContext) -> told_run.ApprovalDecided:
    """It does so no more."""
    asked = over.request
    return told_run.ApprovalDecided(
        run=asked.run,
        workflow=asked.workflow,
        step=asked.step,
        approval=approval_id(asked.run, asked.step),
        ending=over.ending,
        by=over.by,
        requested_at_ms=asked.requested_at_ms,
        decided_at_ms=over.at_ms,
        traceparent=anchor.traceparent,
        tracestate=anchor.state or None,
    )
