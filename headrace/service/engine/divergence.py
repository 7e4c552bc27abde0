"""Divergence: what the log says and what the code did do not fit. Both sides are said in the same words, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from headrace.handlers.message import message_of
from headrace.service.engine.run_state import ChildBegan
from headrace.service.engine.step import ApprovalStep, CallStep, ChildStep, EmitStep, Leaf, TimerStep
from headrace.topics.approval import is_approval
from headrace.topics.command import Approve, Cancel, ChildEnded
from headrace.topics.errors import NotDeterministic
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutputRefused,
    StepsCancelled,
    TimerFired,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.service.engine.run_state import Woke

T = TypeVar("T")

FOR_RUN_ALONE = "a workflow that only awaits its run"
"""What is expected of a body that did something else."""

_SHOWN_MAX = 3  # open steps


class Diverged(Exception):
    """Never leaves the interpreter, which parks the run. `expected` is empty where the record says it all."""

    def __init__(self, step: str, found: str, *, expected: str = "") -> None:
        super().__init__(step)
        self.step = step
        self.found = found
        self.expected = expected


def decoded(decode: Callable[[bytes], T], record: AttemptSucceeded | ChildEnded, of: str) -> T:
    """What `decode` makes of the record's result; `of` is the handler or workflow that returned it. Diverged if it cannot: validators are user code."""
    try:
        return decode(bytes(record.result))
    except NotDeterministic as forbidden:
        raise Diverged(record.step, message_of(forbidden), expected=FOR_RUN_ALONE) from forbidden
    except BaseException as error:
        raise Diverged(record.step, message_of(error), expected=f"a result of {of} that fits its annotation") from error


def expected_by(record: Woke, ref: str) -> str:
    """What the log says that the code did at `ref`."""
    match record:
        case AttemptSucceeded(handler=handler) | AttemptFailed(handler=handler):
            return _called(handler, ref)
        case TimerFired():
            return _approval(ref) if is_approval(ref) else _timer(ref)
        case Emitted(type=type_, topic=topic):
            return _emitted(type_, topic, ref)
        case Approve():
            return _approval(ref)
        case ChildBegan(workflow=workflow, awaited=awaited):
            return _child(workflow, ref, awaited=awaited)
        case ChildEnded(workflow=workflow):
            return _child(workflow, ref, awaited=True)
        case StepsCancelled() | OutputRefused() | Cancel():
            return f"a step at {ref}"
        case _:
            assert_never(record)


def describe(leaf: Leaf[Any]) -> str:
    """What the code issued."""
    match leaf:
        case CallStep(handler=handler):
            return _called(handler.name, leaf.ref)
        case TimerStep():
            return _timer(leaf.ref)
        case ApprovalStep():
            return _approval(leaf.ref)
        case EmitStep(type=type_, topic=topic):
            return _emitted(type_, topic, leaf.ref)
        case ChildStep(workflow=workflow, awaited=awaited):
            return _child(workflow.name, leaf.ref, awaited=awaited)
        case _:
            return f"a step at {leaf.ref}"


def found_instead(ref: str, open_steps: Iterable[Leaf[Any]], *, over: bool) -> str:
    """What is there when no open step has this reference."""
    place = _place(ref)
    waits_for: list[str] = []
    for leaf in open_steps:
        if _place(leaf.ref) == place:
            return describe(leaf)
        if len(waits_for) < _SHOWN_MAX:
            waits_for.append(leaf.ref)
    if over:
        return "the workflow has ended"
    return f"no such step; the workflow waits for {', '.join(waits_for) or 'nothing'}"


def _called(handler: str, ref: str) -> str:
    return f"{handler} called at {ref}"


def _emitted(type_: str, topic: str, ref: str) -> str:
    return f"{type_} emitted to {topic} at {ref}"


def _child(workflow: str, ref: str, *, awaited: bool) -> str:
    return f"{workflow} {'called' if awaited else 'started'} as a child run at {ref}"


def _timer(ref: str) -> str:
    return f"a timer at {ref}"


def _approval(ref: str) -> str:
    return f"an approval at {ref}"


def _place(ref: str) -> str:
    return ref.rpartition("/")[0]
