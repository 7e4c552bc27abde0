"""Schedules as the log tells them: S1 each slot of the time under way starts a run, is missed by the rule, or passes by while the schedule is paused; once, in
order, and none before its time. S2 overlapping runs as declared. A second opinion, which computes slots by itself: the judge's alone.
"""

from collections.abc import Callable

from headrace.topics.command import Start
from headrace.topics.outcome import ScheduleSeen, ScheduleUnnamed, SlotsMissed
from headrace.topics.schedule import Misfire, Overlap, ScheduleDefinition, Slot

_LATE_MAX_MS = 60_000
_MISSED_MAX = 1_000


class Ticking:
    """One schedule."""

    def __init__(self, definition: ScheduleDefinition, active_ms: int) -> None:
        self.spec = definition.spec
        self.active_ms = active_ms
        self.last_ms = active_ms
        self.paused = False
        self.started = 0
        self.missed = 0

    @property
    def every_ms(self) -> int:
        assert self.spec.every_ms is not None
        return self.spec.every_ms

    def next_ms(self) -> int:
        """The slot that is to come."""
        return self.active_ms + ((self.last_ms - self.active_ms) // self.every_ms + 1) * self.every_ms

    def between(self, until_ms: int) -> int:
        """How many slots there are after the newest that is over, until then."""
        return (until_ms - self.active_ms) // self.every_ms - (self.last_ms - self.active_ms) // self.every_ms

    @property
    def left(self) -> bool:
        """Whether there are slots to come."""
        return self.spec.end_ms is not None and self.next_ms() <= self.spec.end_ms and not self.paused


class Ticks:
    """`violated` is called with a sentence for each broken promise."""

    def __init__(self, violated: Callable[[str], None]) -> None:
        self.schedules: dict[str, Ticking] = {}
        self.violated = violated

    def seen(self, outcome: ScheduleSeen, at_ms: int) -> None:
        """It is active from now on, if it was not."""
        known = self.schedules.get(outcome.schedule)
        if known is None:
            self.schedules[outcome.schedule] = Ticking(outcome.definition, at_ms)
        else:
            known.spec = outcome.definition.spec

    def unnamed(self, outcome: ScheduleUnnamed) -> None:
        """It is a week before anything comes of it."""
        if outcome.schedule not in self.schedules:
            self.violated(f"S1 {outcome.schedule} has no name, and nobody has seen it")

    def paused(self, schedule: str, *, pauses: bool, at_ms: int) -> None:
        """Somebody pauses or resumes it."""
        known = self.schedules.get(schedule)
        if known is not None and known.paused is not pauses:
            known.paused = pauses
            if not pauses:
                known.last_ms = max(known.last_ms, at_ms)

    def starts(self, slot: Slot, at_ms: int) -> bool:
        """Whether this start of a slot counts."""
        known = self.schedules.get(slot.schedule)
        if known is None or known.paused or slot.after_ms != known.last_ms or at_ms < slot.at_ms:
            return False
        if slot.at_ms != known.next_ms() or slot.at_ms > (known.spec.end_ms or slot.at_ms):
            self.violated(f"S1 {slot} is started where {known.next_ms()} is the next slot")
        known.last_ms = slot.at_ms
        known.started += 1
        return True

    def missed(self, outcome: SlotsMissed, at_ms: int) -> None:
        """Slots are left out: by the rule, all of them, and all are over."""
        known = self.schedules.get(outcome.schedule)
        if known is None or known.paused or outcome.after_ms != known.last_ms or at_ms < outcome.due_ms:
            return
        if (outcome.until_ms - known.active_ms) % known.every_ms or outcome.count != known.between(outcome.until_ms):
            self.violated(f"S1 {outcome} says {outcome.count}, there are {known.between(outcome.until_ms)}")
        known.last_ms = outcome.until_ms
        known.missed += outcome.count
        newer = known.next_ms() <= min(at_ms, known.spec.end_ms or at_ms)
        match known.spec.misfire:
            case Misfire.LATEST:
                good = newer
            case Misfire.SKIP:
                good = newer or outcome.until_ms < at_ms - _LATE_MAX_MS
            case Misfire.ALL:
                good = known.between(at_ms) >= _MISSED_MAX
        if not good:
            self.violated(f"S1 {outcome} is left out at {at_ms}, which {known.spec.misfire} does not allow")

    def overlaps(self, start: Start, open_: int) -> None:
        """A run of a slot has begun beside so many others of its schedule."""
        slot = start.slot
        if open_ and slot is not None and self.schedules[slot.schedule].spec.overlap is not Overlap.ALLOW:
            self.violated(f"S2 {slot} begins beside {open_} other runs")

    def unfinished(self) -> list[str]:
        """Slots that are to come."""
        return [f"{id_} has slots from {each.next_ms()} on" for id_, each in self.schedules.items() if each.left]
