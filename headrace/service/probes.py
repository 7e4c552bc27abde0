"""Probes: whose turn it is to be woken on trial. One per process, for a process that dies takes the runs of all its partitions with it.

Runs without a strike are tried a few at a time: whoever dies with them strikes all of them. A struck run is tried alone, after all others, and after a
quiet time that grows with its strikes: what dies then, died of it. Who kills processes for other reasons mostly hits the quiet. Called by `awake_runs.py`.

Source records that may end the process have trials of their own. `source.py` says when, so that a death is either a run's or a record's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from headrace.topics.event_wait import set_within

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Container, Generator

# unstruck runs on trial at once: so many are tried alone after a death, each as long as its first outcome takes
_TOGETHER = 16

QUIET_S = 0.5
"""For each strike, between asking and being tried."""

PATIENCE_S = 10.0
"""Of records with a run's trial, from its begin on: it lasts until the run's first outcome, which may take hours."""

HOLD_S = 60.0
"""So long at most runs wait for a source: what it has to note or to send may be refused for hours."""


class _Waiting(NamedTuple):
    run: str
    strikes: int
    begin: Callable[[], None]


class Trial(NamedTuple):
    """A run's. `patience_ends_s` is a time of the loop's clock."""

    alone: bool
    patience_ends_s: float


class Probes:
    """`ask`, then one of `over` and `forget`. `begin` says in the log that the run is about to be woken."""

    def __init__(self) -> None:
        self.open: dict[str, Trial] = {}  # of runs
        self._unstruck: deque[_Waiting] = deque()
        self._struck: list[_Waiting] = []
        self._quiet: dict[str, asyncio.TimerHandle] = {}  # struck runs that wait for their time, not for their turn
        self._careful: set[object] = set()  # sources that read with care: no run is tried alone
        self._records: set[object] = set()  # on trial: no run is
        self._ended = asyncio.Event()  # set when a trial of a run ends; then there is another one

    def ask(self, run: str, strikes: int, begin: Callable[[], None]) -> None:
        """Call `begin` when the run's turn has come: perhaps at once."""
        waiting = _Waiting(run, strikes, begin)
        if strikes:
            quiet_s = strikes * QUIET_S
            self._quiet[run] = asyncio.get_running_loop().call_later(quiet_s, self._after_quiet, waiting)
        else:
            self._unstruck.append(waiting)
            self._go_on()

    def _after_quiet(self, waiting: _Waiting) -> None:
        del self._quiet[waiting.run]
        self._struck.append(waiting)
        self._struck.sort(key=lambda each: each.strikes)  # stable: else the order in which they asked
        self._go_on()

    def over(self, run: str) -> None:
        """It has proven itself, or will not be woken."""
        if self.open.pop(run, None) is not None:
            self._tell_ended()
            self._go_on()

    def forget(self, runs: Container[str]) -> None:
        """A partition's token is over: none of these is woken by it any more."""
        self._unstruck = deque(each for each in self._unstruck if each.run not in runs)
        self._struck = [each for each in self._struck if each.run not in runs]
        for run in [run for run in self._quiet if run in runs]:
            self._quiet.pop(run).cancel()
        for run in [run for run in self.open if run in runs]:
            del self.open[run]
            self._tell_ended()
        self._go_on()

    # --- records ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def none_alone(self) -> AsyncGenerator[None]:
        """No struck run is tried meanwhile. Waits for the end of one that is."""
        with self._hold(self._careful):
            await self._until_over(alone=True)
            yield

    @contextlib.asynccontextmanager
    async def none(self) -> AsyncGenerator[None]:
        """No run is tried meanwhile. Waits for the end of those that are."""
        with self._hold(self._records):
            await self._until_over(alone=False)
            yield

    @contextlib.contextmanager
    def _hold(self, holds: set[object]) -> Generator[None]:
        hold = object()
        holds.add(hold)

        def let_go() -> None:
            holds.discard(hold)
            self._go_on()

        alarm = asyncio.get_running_loop().call_later(HOLD_S, let_go)
        try:
            yield
        finally:
            alarm.cancel()
            let_go()

    async def _until_over(self, *, alone: bool) -> None:
        now_s = asyncio.get_running_loop().time
        while awaited := [trial.patience_ends_s for trial in self.open.values() if trial.alone or not alone]:
            patience_s = max(awaited) - now_s()
            if patience_s <= 0:
                return
            await set_within(self._ended, patience_s)

    def _tell_ended(self) -> None:
        self._ended.set()
        self._ended = asyncio.Event()

    # --- turns -----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while self._unstruck and not self._records and len(self.open) < _TOGETHER and not self._tries_one_alone():
            self._begin(self._unstruck.popleft(), alone=False)
        if self._struck and not self._unstruck and not self.open and not (self._careful or self._records):
            self._begin(self._struck.pop(0), alone=True)

    def _tries_one_alone(self) -> bool:
        return any(trial.alone for trial in self.open.values())

    def _begin(self, waiting: _Waiting, *, alone: bool) -> None:
        self.open[waiting.run] = Trial(alone, asyncio.get_running_loop().time() + PATIENCE_S)
        waiting.begin()
