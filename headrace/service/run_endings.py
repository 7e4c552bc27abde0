"""Ends that runs get from their owner, without their code: one is cancelled whose code cannot or need not run, or has become too big to go on.

Called by `awake_runs.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.topics.outcome import RunEnded, RunStatus

if TYPE_CHECKING:
    from headrace.service.engine.run_state import RunState
    from headrace.service.shared import Shared
    from headrace.service.tenure import Tenure

RUN_TOO_BIG = "HR4013"


class RunEndings:
    """Of one partition. `said` are runs whose end was proposed here and is not read back."""

    def __init__(self, shared: Shared, tenure: Tenure) -> None:
        self.said: set[str] = set()
        self._shared = shared
        self._tenure = tenure

    def cancelled(self, run: RunState) -> None:
        """It ends if somebody has cancelled it."""
        reason = run.cancelled_by()
        if reason is not None:
            self._say(RunEnded(run=run.id, status=RunStatus.CANCELLED, error="Cancelled", message=reason))

    def too_big(self, run: RunState) -> None:
        """A run whose history would not fit into memory: it ends here, whatever it was about to do. Its finished tasks are not undone."""
        limit = self._shared.settings.limits.run_bytes
        self._say(
            RunEnded(
                run=run.id,
                status=RunStatus.FAILED,
                error="LimitExceeded",
                message=f"{RUN_TOO_BIG}: the run's results have {run.history_bytes} bytes, limits.run_bytes is {limit}.",
            )
        )

    def masked(self, ended: RunEnded) -> RunEnded:
        """Without secrets: the message is whatever the run's code raised."""
        if not ended.message or (message := self._shared.mask(ended.message)) == ended.message:
            return ended
        return msgspec.structs.replace(ended, message=message)

    def _say(self, ended: RunEnded) -> None:
        """Once: whatever comes before it is read back, a run has one ending."""
        if ended.run not in self.said:
            self.said.add(ended.run)
            self._tenure.propose(ended)
