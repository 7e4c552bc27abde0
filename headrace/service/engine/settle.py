"""What a record does to the one run that it is about: a step is over, the run has something to notice. Called by the parts of the fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.engine.folded import DONE, Folded
from headrace.service.engine.instruction import Advance
from headrace.service.engine.run_state import Phase

if TYPE_CHECKING:
    from headrace.service.engine.run_state import RunState, Woke


def settled(run: RunState, step: str, record: Woke, at_ms: int, size: int) -> Folded:
    """A step of the run is over by this record: the run may notice. `size` is the record's bytes."""
    run.settled.add(step)
    if run.tries:
        run.tries.pop(step, None)
    if run.timers:
        run.timers.pop(step, None)
    return woken(run, record, at_ms, size)


def woken(run: RunState, record: Woke, at_ms: int, size: int) -> Folded:
    """The run has a record more to notice."""
    if at_ms > run.clock_ms:  # noqa: PLR1730 - as in `fold`
        run.clock_ms = at_ms
    run.history.append((record, at_ms))
    run.history_bytes += size
    run.rests = False
    if run.phase is Phase.PARKED:
        return DONE
    return Folded(instructions=[Advance(run, record, at_ms)])
