"""What awaiting a step raises when the log says that it failed: text, never a class of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.topics.errors import Cause, ChildFailed, TaskFailed

if TYPE_CHECKING:
    from headrace.topics.command import ChildEnded
    from headrace.topics.outcome import AttemptFailed, OutputRefused

_OUTPUT_TRIES = 3  # of the outbox, before it says that a topic refuses


def task_failed(record: AttemptFailed) -> TaskFailed:
    """A task, for good."""
    return TaskFailed(
        task=record.step,
        handler=record.handler,
        cause=record.cause,
        error=record.error,
        message=record.message,
        attempts=record.number,
    )


def output_refused(record: OutputRefused, step: str) -> TaskFailed:
    """An event that its topic will never take."""
    return TaskFailed(
        task=step,
        handler="emit",
        cause=Cause.OUTPUT_REFUSED,
        error=record.code,
        message=record.message,
        attempts=_OUTPUT_TRIES,
    )


def child_failed(record: ChildEnded) -> ChildFailed:
    """A child run that did not succeed."""
    return ChildFailed(
        task=record.step,
        workflow=record.workflow,
        child=record.child,
        status=record.status,
        cause=record.cause or Cause.RAISED,
        error=record.error,
        message=record.message,
    )
