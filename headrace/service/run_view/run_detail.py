"""`RunDetail`: one run in full, as `run get` prints it; and how it is made of the state of its partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.run_state import ChildBegan
from headrace.service.run_view.summary import RunSummary
from headrace.topics.approval import approval_id
from headrace.topics.command import ChildEnded
from headrace.topics.event import format_time
from headrace.topics.trace_context import kept_context, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.service.engine.approval import ApprovalRequest
    from headrace.service.engine.run_state import RunState
    from headrace.topics.outcome import RunEnded


class OpenStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that waits: for a timer, for its next attempt, for somebody's decision, or for a child run. `until` is "" if that may take for ever."""

    step: str
    waits_for: str
    until: str
    approval: str = ""  # its id
    title: str = ""  # what people are asked
    roles: tuple[str, ...] = ()


class ChildRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a step began. `status` is known of one that is awaited and has ended; the run's own log has the rest."""

    step: str
    run: str
    workflow: str
    awaited: bool
    status: str | None = None


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One run in full. This is the JSON of `run get`."""

    summary: RunSummary
    input: msgspec.Raw
    result: msgspec.Raw | None
    waiting: tuple[OpenStep, ...]
    joined: int
    undone: int
    undo_failed: int
    parked_step: str
    expected: str  # what the log says, for a parked run
    found: str  # what the code did
    retry: str = ""  # the newest retry of this run
    # of its spans and log lines, if the producer's trace does not go on (telemetry.parent_from_kafka)
    trace_id: str = ""
    producer_trace_id: str = ""  # of the source record, or of the parent of a detached child
    parent: str = ""  # the run whose child this is, and the step there
    parent_step: str = ""
    children: tuple[ChildRun, ...] = ()


def detail_of(
    run: RunState, summary: RunSummary, ended: RunEnded | None, approvals: Mapping[str, ApprovalRequest]
) -> RunDetail:
    """One run in full; without `ended` it is open. `approvals` are those of its partition's state."""
    asked = [_asked(approvals[f"{run.id}{step}"]) for step in sorted(run.approvals)] if ended is None else ()
    timers = [
        OpenStep(step=step, waits_for="timer", until=format_time(due))
        for step, due in run.timers.items()
        if step not in run.approvals
    ]
    tries = [
        OpenStep(step=step, waits_for=f"attempt {tries.failed + 1}", until=format_time(tries.not_before_ms))
        for step, tries in run.tries.items()
    ]
    awaited = [OpenStep(step=step, waits_for=f"child run {child}", until="") for step, child in run.children.items()]
    parked, parent = run.parked, run.start.parent
    producer = kept_context(run.start.traceparent, None)
    goes_on = run.start.event is None if parent is None else parent.awaited
    return RunDetail(
        summary=summary,
        input=run.start.input,
        result=None if ended is None else ended.result,
        waiting=(*timers, *tries, *asked, *awaited) if ended is None else (),
        joined=run.joined,
        undone=0 if ended is None else ended.undone,
        undo_failed=0 if ended is None else ended.undo_failed,
        parked_step="" if parked is None else parked.step,
        expected="" if parked is None else parked.expected,
        found="" if parked is None else parked.found,
        trace_id=producer.trace_id if producer is not None and goes_on else trace_id_of(run.id),
        producer_trace_id="" if producer is None else producer.trace_id,
        parent="" if parent is None else parent.run,
        parent_step="" if parent is None else parent.step,
        children=_children(run),
    )


def _children(run: RunState) -> tuple[ChildRun, ...]:
    """As far as the run knows."""
    copied = run.retried.copied if run.retried is not None else ()
    found: dict[str, ChildRun] = {}
    for record in (*copied, *(record for record, _ in run.history)):
        if isinstance(record, ChildBegan):
            found[record.step] = ChildRun(
                step=record.step, run=record.child, workflow=record.workflow, awaited=record.awaited
            )
        elif isinstance(record, ChildEnded):
            found[record.step] = ChildRun(
                step=record.step,
                run=record.child,
                workflow=record.workflow,
                awaited=True,
                status=str(record.status),
            )
    return tuple(found.values())


def _asked(request: ApprovalRequest) -> OpenStep:
    due_at_ms = request.due_at_ms
    return OpenStep(
        step=request.step,
        waits_for="approval",
        until="" if due_at_ms is None else format_time(due_at_ms),
        approval=approval_id(request.run, request.step),
        title=request.title,
        roles=request.roles,
    )
