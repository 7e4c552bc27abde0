"""Runs of one partition that only wait: after a short while a run's coroutine is dropped and its state kept as bytes, with one wake-up for all its timers.

A live run is a cache of folded records: dropping one at any moment changes nothing. What wakes it (its first timer or retry, a command, a delivered result)
asks for room first; then it is rebuilt from its own history, arms its timers again and goes on. Where all slots are taken its timers fire without it: when
one did, and what a race was decided by, does not depend on others. Called by `awake_runs.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from headrace.service.engine.interpreter import TIMEOUT_STEP
from headrace.service.fault_point import FaultPoint, maybe

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.engine.state import PartitionState
    from headrace.service.live_run import LiveRun
    from headrace.service.shared import Shared

_RESTING_MAX = 2_000  # live runs of a process that only wait: past it the oldest are dropped early. Some 10 KiB each
_SLICE_S = 0.005  # the longest stretch of dropping before the loop gets its turn
_ALARM_MIN_S = 0.001  # what is left by rounding alone would ring at once, and again
_ROOM_S = 0.1  # for a slot to become free before a timer fires without its run


class IdleRuns:
    """`live` are the partition's live runs. `wake` gets a run whose turn to be rebuilt has come, `fire` a timer's run and step, and when it was due."""

    def __init__(
        self,
        shared: Shared,
        state: PartitionState,
        live: dict[str, LiveRun],
        wake: Callable[[str], None],
        fire: Callable[[tuple[str, str], int], None],
    ) -> None:
        self.waking: set[str] = set()  # they have asked for room
        self.delayed: dict[str, tuple[str, int]] = {}  # dropped ones with tasks between two attempts: workflow, tasks
        self.untimed: set[str] = set()  # dropped ones that no timer will wake
        self._shared = shared
        self._state = state
        self._live = live
        self._wake = wake
        self._fire = fire
        self._overdue: dict[str, None] = {}  # runs that ask for room because a timer rang; those first that rang first
        self._overdue_alarm: asyncio.TimerHandle | None = None
        self._after_ms = shared.settings.worker.idle_after_ms
        self._resting: deque[tuple[float, LiveRun]] = deque()  # since when; some have moved on
        self._alarm: asyncio.Handle | None = None
        self._rang = self._rings  # one bound method for all wake-ups

    # --- falling asleep --------------------------------------------------------------------------------------------

    def rest(self, live: LiveRun) -> None:
        """From now on it only waits."""
        loop = asyncio.get_running_loop()
        since = live.rests_since = loop.time()
        self._resting.append((since, live))
        self._shared.resting += 1
        if self._alarm is None:
            self._alarm = loop.call_later(self._after_ms / 1000, self._drop_due)
        if self._shared.resting > _RESTING_MAX:
            self._drop_if_idle(*self._next())

    def drop_at_once(self) -> None:
        """Drop all that only wait, if nothing may wait live: a setting for tests."""
        if not self._after_ms:
            while self._resting:
                self._drop_if_idle(*self._next())

    def _next(self) -> tuple[float, LiveRun]:
        self._shared.resting -= 1
        return self._resting.popleft()

    def _drop_due(self) -> None:
        loop, resting = asyncio.get_running_loop(), self._resting
        ripe = loop.time() - self._after_ms / 1000
        slice_ends = loop.time() + _SLICE_S
        self._alarm = None
        while resting and resting[0][0] <= ripe:
            self._drop_if_idle(*self._next())
            if loop.time() > slice_ends:
                self._alarm = loop.call_soon(self._drop_due)
                return
        if resting:
            self._alarm = loop.call_later(max(_ALARM_MIN_S, resting[0][0] - ripe), self._drop_due)

    def _drop_if_idle(self, since: float, live: LiveRun) -> None:
        run = live.state.id
        if live.rests_since != since or live.held or not live.waits() or self._live.get(run) is not live:
            return
        timers = self._shared.timers
        keys = [(run, ref) for ref in (*live.timers, *live.delayed)]
        first_ms = min((due for due in map(timers.due_at_ms, keys) if due is not None), default=None)
        if first_ms is not None and first_ms <= self._shared.clock.now_ms():
            return  # it rings now; woken for that, it would fall asleep again before it does
        maybe(FaultPoint.RUN_IDLE)
        for key in keys:
            timers.disarm(key)
        if live.delayed:
            self.delayed[run] = (live.state.start.workflow, len(live.delayed))
        del self._live[run]
        live.close()
        self._state.runs.shrink(run)
        self.sleep_until(run, first_ms)

    # --- waking up -------------------------------------------------------------------------------------------------

    def sleep_until(self, run: str, due_at_ms: int | None) -> None:
        """Wake it then; None: a record will, nothing else."""
        if due_at_ms is None:
            self.untimed.add(run)
        else:
            self._shared.timers.arm(run, due_at_ms, self._rang)

    def wake(self, run: str) -> None:
        """Rebuild it as soon as there is room."""
        if run not in self.waking:
            self._shared.timers.disarm(run)
            self.untimed.discard(run)
            self.waking.add(run)
            self._shared.admission.wake(run, self._has_room, needed=run in self._state.parents)

    def _rings(self, run: str, _due_at_ms: int) -> None:
        self.wake(run)
        if run in self.waking:
            self.overdue(run)

    def overdue(self, run: str) -> None:
        """A timer of it is due, and it waits for room."""
        self._overdue[run] = None
        if self._overdue_alarm is None:
            self._overdue_alarm = asyncio.get_running_loop().call_later(_ROOM_S, self._fire_overdue)

    def _fire_overdue(self) -> None:
        """Let timers fire whose runs have no slot to wake in: no more at once than the log takes."""
        self._overdue_alarm = None
        admission, loop = self._shared.admission, asyncio.get_running_loop()
        slice_ends = loop.time() + _SLICE_S
        while self._overdue and admission.slots_taken and not admission.saturated:
            run = next(iter(self._overdue))
            del self._overdue[run]
            self._fire_due(run)
            if loop.time() > slice_ends:
                self._overdue_alarm = loop.call_later(_ALARM_MIN_S, self._fire_overdue)
                return
        if self._overdue:
            self._overdue_alarm = loop.call_later(_ROOM_S, self._fire_overdue)

    def _fire_due(self, run_id: str) -> None:
        run = self._state.runs.look(run_id)
        if run is None:
            return
        timeout_at_ms = self._shared.timeout_at_ms(run)
        timers = run.timers if timeout_at_ms is None else {**run.timers, TIMEOUT_STEP: timeout_at_ms}
        now_ms = self._shared.clock.now_ms()
        for step, due_at_ms in timers.items():
            if due_at_ms <= now_ms:
                self._fire((run_id, step), due_at_ms)

    def _has_room(self, run: str) -> None:
        if run in self.waking:  # it has not ended meanwhile
            self.waking.discard(run)
            self._overdue.pop(run, None)
            self.delayed.pop(run, None)
            self._wake(run)

    # --- leaving ---------------------------------------------------------------------------------------------------

    def forget(self, run: str) -> None:
        """It has ended, or is parked."""
        self._shared.timers.disarm(run)
        self.waking.discard(run)
        self._overdue.pop(run, None)
        self.delayed.pop(run, None)
        self.untimed.discard(run)

    def forget_all(self) -> None:
        """None of them is ours."""
        for run in self._state.runs:
            self._shared.timers.disarm(run)
        self.waking.clear()
        self._overdue.clear()
        self.delayed.clear()
        self.untimed.clear()
        self._shared.resting -= len(self._resting)
        self._resting.clear()
        for alarm in (self._alarm, self._overdue_alarm):
            if alarm is not None:
                alarm.cancel()
        self._alarm = self._overdue_alarm = None
