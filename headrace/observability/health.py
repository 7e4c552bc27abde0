"""`Health`: what `/livez`, `/readyz` and `/startupz` answer from.

The shell sets conditions by name as they change; the port reads them in its own thread. Ready = started, not
draining, and every condition holds. Notes say what is degraded without making the instance unready (a missing output
topic, say).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from typing import Final

import msgspec

ALIVE_WITHIN_S: Final = 30.0
"""A loop that has not turned for so long is dead, not busy: well above the worst stall that a handler should cause."""


class Condition(StrEnum):
    """What must hold for `/readyz`."""

    MEMBER = "member"  # of the group, or the embedded file is ours; a spare instance is a member too
    REPLAYED = "replayed"  # all owned partitions are folded, and not all of them have stopped
    BROKER = "broker"  # reachable


class ConditionNow(msgspec.Struct, frozen=True):
    """One condition: does it hold, and what to tell people."""

    ok: bool
    detail: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `?verbose`. `status`: ready, degraded (ready, with notes), unready, starting, draining."""

    status: str
    ready: bool
    started: bool
    alive: bool
    conditions: dict[str, ConditionNow]
    notes: dict[str, str]


class Health:
    """Writers are on the loop's thread; each write replaces a value, so readers elsewhere need no lock."""

    def __init__(self, conditions: Iterable[str] = tuple(Condition)) -> None:
        self._conditions = {name: ConditionNow(ok=False, detail="not yet") for name in map(str, conditions)}
        self._notes: dict[str, str] = {}
        self._started = False
        self._draining = ""
        self._silent_s: Callable[[], float] = lambda: 0.0

    def watch(self, silent_s: Callable[[], float]) -> None:
        """Where to ask how many seconds ago the loop turned (the watchdog's `silent_s`)."""
        self._silent_s = silent_s

    def set(self, condition: str, *, ok: bool, detail: str = "") -> None:
        """A condition changed, or a new one came up."""
        self._conditions[str(condition)] = ConditionNow(ok, detail)

    def note(self, name: str, detail: str) -> None:
        """Degraded: people should know. `detail=""` takes the note back."""
        if detail:
            self._notes[name] = detail
        else:
            self._notes.pop(name, None)

    def keep(self, kind: str, names: Collection[str]) -> None:
        """Of the notes whose names begin with `kind`, take back all but these."""
        for name in [name for name in self._notes if name.startswith(kind) and name not in names]:
            self._notes.pop(name, None)

    def start(self) -> None:
        """Start-up is over: `/startupz` says yes from now on, whatever comes."""
        self._started = True

    def drain(self, reason: str) -> None:
        """The stop began (SIGTERM): unready at once and for good."""
        self._draining = reason or "stopping"

    @property
    def alive(self) -> bool:
        """Does the loop turn?"""
        return self._silent_s() < ALIVE_WITHIN_S

    @property
    def started(self) -> bool:
        """Is start-up over?"""
        return self._started

    @property
    def ready(self) -> bool:
        """May work be expected of this instance?"""
        return self._started and not self._draining and all(now.ok for now in tuple(self._conditions.values()))

    def report(self) -> Report:
        """Everything, for people."""
        ready, notes = self.ready, dict(self._notes)
        if self._draining:
            status = "draining"
        elif not self._started:
            status = "starting"
        elif not ready:
            status = "unready"
        else:
            status = "degraded" if notes else "ready"
        conditions = dict(self._conditions)
        if self._draining:
            conditions["draining"] = ConditionNow(ok=False, detail=self._draining)
        return Report(
            status=status, ready=ready, started=self._started, alive=self.alive, conditions=conditions, notes=notes
        )
