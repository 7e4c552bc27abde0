"""Probation: which runs may be what ends their owners. Part of the partition's state, changed by the fold alone.

An *unclean take-over* is an announce of another instance while the token before it was still open: its owner died, or was thought dead. From
the third within ten minutes on, the owner works in probe mode: a run that has not proven itself under this owner is woken only after a `run.probed`
of it was read back. It has proven itself when an outcome of it shows that its code has survived being woken, or when it waits. A run that was being
probed at an unclean take-over is *struck*; a struck run is probed alone in its process, after all others, in whatever mode. Struck four times, it is
parked as poison by the next owner.

    unproven ──probed──► on trial ──outcome, or it waits──► proven
                 ▲           │ unclean take-over
                 │           ▼
                 └─alone── struck ──fourth time─► parked (resumed: three strikes)

One strike is no proof: a process that owns many partitions, or that somebody kills for other reasons, dies while innocent runs are being probed. They prove
themselves the next time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.gate import NO_TOKEN
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptSucceeded,
    ChildStarted,
    Emitted,
    ParkReason,
    ProbePassed,
    RunEnded,
    RunParked,
    TimerArmed,
)

if TYPE_CHECKING:
    from headrace.topics.outcome import Outcome

TAKEOVERS = 3
"""Unclean take-overs within the window from which on runs are probed."""

WINDOW_MS = 600_000

STRIKES_MAX = 4
"""Unclean take-overs during probes of one run, all but the first of them alone, after which it is parked."""


class Suspect(msgspec.Struct):
    """A run on trial under `token` (-1: not now), and at how many unclean take-overs it was."""

    token: int = NO_TOKEN
    strikes: int = 0


class Probation(msgspec.Struct):
    """`owner` is the instance of the newest accepted announce, `unclean` the append times of the newest unclean take-overs, at most three."""

    owner: str = ""
    unclean: list[int] = []
    suspects: dict[str, Suspect] = {}

    def announced(self, instance: str, open_token: int, at_ms: int) -> None:
        """An announce was accepted. `open_token` is the token before it, -1 if that was released."""
        unclean = open_token != NO_TOKEN and instance != self.owner
        self.owner = instance
        if unclean:
            self.unclean = [*self.unclean[1 - TAKEOVERS :], at_ms]
        if self.suspects:
            self._judge(open_token if unclean else NO_TOKEN)

    def _judge(self, died: int) -> None:
        for run, suspect in list(self.suspects.items()):
            if suspect.token != NO_TOKEN and suspect.token == died:
                suspect.strikes += 1
            suspect.token = NO_TOKEN
            if not suspect.strikes:
                del self.suspects[run]

    def probing(self, now_ms: int) -> bool:
        """Whether every run is on probation at this time of the log's clock."""
        return len(self.unclean) == TAKEOVERS and now_ms - self.unclean[0] <= WINDOW_MS

    def strikes(self, run: str) -> int:
        """How often the run was being probed when its owner died."""
        suspect = self.suspects.get(run)
        return 0 if suspect is None else suspect.strikes

    def probed(self, run: str, token: int) -> None:
        """The owner is about to wake the run."""
        self.suspects[run] = Suspect(token, self.strikes(run))

    def proven_by(self, outcome: Outcome) -> str | None:
        """The run that this outcome, which had an effect, takes off the list; None if there is none."""
        match outcome:
            case RunParked(run=run, reason=ParkReason.POISON):
                self.suspects[run] = Suspect(strikes=STRIKES_MAX - 1)  # resumed or cancelled, it has one more try
                return run
            case AttemptFailed(retry_after_ms=retry_after_ms) if retry_after_ms is not None:
                return None  # one task tries again; another one may be the deadly one
            case (
                AttemptSucceeded(run=run)
                | AttemptFailed(run=run)
                | TimerArmed(run=run)
                | ApprovalRequested(run=run)
                | Emitted(run=run)
                | ChildStarted(run=run)
                | ProbePassed(run=run)
                | RunParked(run=run)
                | RunEnded(run=run)
            ):
                return run if self.suspects.pop(run, None) is not None else None
            case _:
                return None
