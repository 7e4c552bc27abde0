"""What a schedule does now: wait for its next slot, start the one that is due, or leave out what was missed. Pure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from headrace.topics.schedule import Misfire

if TYPE_CHECKING:
    from headrace.service.slots import Slots

LATE_MAX_MS = 60_000
"""With `skip`, a slot may start so late: a deploy or a take-over at its time does not make it a missed one."""
MISSED_MAX = 1_000
"""With `all`, so many of the newest missed slots are started: a service that was away for a month has no use for forty thousand runs."""
COUNTED_MAX = 500  # slots in one record of those that were missed: counting them takes some milliseconds

TOO_MANY_MISSED = "HR4123"


class Wait(msgspec.Struct, frozen=True):
    """Nothing is due before `until_ms`; None: never again."""

    until_ms: int | None


class Fire(msgspec.Struct, frozen=True):
    """This slot starts a run."""

    at_ms: int


class Miss(msgspec.Struct, frozen=True):
    """`count` slots, the last of them at `until_ms`, start nothing. Not to be said before `due_ms`, by the log's clock."""

    until_ms: int
    due_ms: int
    count: int


class Due:
    """Decides for one schedule."""

    def __init__(self, slots: Slots, misfire: Misfire) -> None:
        self._slots = slots
        self._misfire = misfire
        self._catching_up: tuple[int, int] | None = None  # with `all`: from where on every slot is started

    def after(self, last_ms: int, now_ms: int) -> Wait | Fire | Miss:
        """What comes after the slot at `last_ms`. Asked again after each answer that took effect, until it says wait."""
        first_ms = self._slots.next(last_ms)
        if first_ms is None or first_ms > now_ms:
            self._catching_up = None
            return Wait(first_ms)
        started_ms, due_ms = self._started_from(last_ms, now_ms)
        if first_ms >= started_ms:
            return Fire(first_ms)
        left_out = list(islice(self._slots.up_to(last_ms, started_ms - 1), COUNTED_MAX))
        return Miss(until_ms=left_out[-1], due_ms=due_ms, count=len(left_out))

    def _started_from(self, last_ms: int, now_ms: int) -> tuple[int, int]:
        """The first moment whose slots are started still, and since when those before it may be left out."""
        if self._misfire is Misfire.ALL:
            if self._catching_up is None:
                newest = self._slots.newest(MISSED_MAX, last_ms, now_ms)
                self._catching_up = newest[0], newest[-1]
            return self._catching_up
        (newest_ms,) = self._slots.newest(1, last_ms, now_ms)
        if self._misfire is Misfire.LATEST or newest_ms >= now_ms - LATE_MAX_MS:
            return newest_ms, newest_ms
        return newest_ms + 1, newest_ms + LATE_MAX_MS + 1
