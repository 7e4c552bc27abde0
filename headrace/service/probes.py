"""Probes: whose turn it is to be woken on trial. One per process, for a process that dies takes the runs of all its partitions with it.

Runs without a strike are tried a few at a time: whoever dies with them strikes all of them. A struck run is tried alone, after all others, and after a
quiet time that grows with its strikes: what dies then, died of it. Who kills processes for other reasons mostly hits the quiet. Called by `awake_runs.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container

# unstruck runs on trial at once: so many are tried alone after a death, each as long as its first outcome takes
_TOGETHER = 16

QUIET_S = 0.5
"""For each strike, between asking and being tried."""


class _Waiting(NamedTuple):
    run: str
    strikes: int
    begin: Callable[[], None]


class Probes:
    """`ask`, then one of `over` and `forget`. `begin` says in the log that the run is about to be woken."""

    def __init__(self) -> None:
        self.open: dict[str, bool] = {}  # runs on trial; True: alone
        self._unstruck: deque[_Waiting] = deque()
        self._struck: list[_Waiting] = []
        self._quiet: dict[str, asyncio.TimerHandle] = {}  # struck runs that wait for their time, not for their turn

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
            self._go_on()

    def forget(self, runs: Container[str]) -> None:
        """A partition's token is over: none of these is woken by it any more."""
        self._unstruck = deque(each for each in self._unstruck if each.run not in runs)
        self._struck = [each for each in self._struck if each.run not in runs]
        for run in [run for run in self._quiet if run in runs]:
            self._quiet.pop(run).cancel()
        for run in [run for run in self.open if run in runs]:
            del self.open[run]
        self._go_on()

    def _go_on(self) -> None:
        while self._unstruck and len(self.open) < _TOGETHER and not any(self.open.values()):
            waiting = self._unstruck.popleft()
            self.open[waiting.run] = False
            waiting.begin()
        if self._struck and not self._unstruck and not self.open:
            waiting = self._struck.pop(0)
            self.open[waiting.run] = True
            waiting.begin()
