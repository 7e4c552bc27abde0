"""Compensation: what undoes the finished tasks of a run that fails. One after the other, the task that finished last comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.service.engine.step import CallStep, Settled

if TYPE_CHECKING:
    from headrace.service.engine.interpreter import Interpreter


class Compensation:
    """Tasks with an undo, in order of completion, and what became of the undos. A failed undo is counted; the next one is tried all the same."""

    __slots__ = ("_current", "_finished", "failed", "undone")

    def __init__(self) -> None:
        self._finished: list[CallStep[Any]] = []
        self._current: CallStep[Any] | None = None
        self.undone = 0
        self.failed = 0

    def note(self, call: CallStep[Any]) -> None:
        """A task has finished."""
        if call.compensate is not None:
            self._finished.append(call)

    @property
    def wanted(self) -> bool:
        """There is something to undo."""
        return bool(self._finished)

    @property
    def waits(self) -> bool:
        """An undo is open."""
        return self._current is not None and not self._current.done()

    def next(self, interpreter: Interpreter) -> CallStep[Any] | None:
        """Count the undo that has settled, and make the next one; None when all are done."""
        if self._current is not None:
            if self._current.state is Settled.SUCCEEDED:
                self.undone += 1
            else:
                self.failed += 1
            self._current = None
        if not self._finished:
            return None
        done = self._finished.pop()
        undo = done.compensate
        assert undo is not None  # noqa: S101 - `note` keeps no others
        ref = f"{done.ref}/undo/{undo.name}"
        self._current = CallStep(interpreter, ref, undo, done.arguments, interpreter.clock_ms, undoes=done.ref)
        return self._current
