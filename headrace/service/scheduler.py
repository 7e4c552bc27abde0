"""The scheduler of one run-log partition: starts the runs of the schedules that live there. Called by `awake_runs.py`, on the loop.

Which slots are over is in the log; what is kept here is a cache. For each schedule there is one timer, or one record on its way, which is looked at again when
it comes back. A record that is not back in time is said again: it counts once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from headrace.observability import told_run
from headrace.observability.label import MissReason
from headrace.service.engine.schedule import FORGOTTEN_MS
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.misfire import MISSED_MAX, TOO_MANY_MISSED, Due, Fire, Miss, Wait
from headrace.service.schedule_start import home_of, slot_start
from headrace.service.slots import Slots
from headrace.topics.command import PauseSchedule, ResumeSchedule, Start
from headrace.topics.identity import SlotId, run_id
from headrace.topics.log import NewRecord
from headrace.topics.outcome import ScheduleSeen, ScheduleUnnamed, SlotsMissed
from headrace.topics.run_record import CommandRecord, encode
from headrace.topics.schedule import Misfire, Slot

if TYPE_CHECKING:
    from headrace.service.engine.instruction import Scheduled
    from headrace.service.engine.schedule_state import ScheduleState
    from headrace.service.engine.state import PartitionState
    from headrace.service.shared import Shared
    from headrace.service.tenure import Tenure
    from headrace.topics.errors import HeadraceError

_AGAIN_MS = 10_000  # what was proposed and has not come back is looked at again
_FAILED_MS = 1_000  # the same where its append has failed


class Scheduler:
    """`named` are the schedules of this partition that the newest loaded versions have, by id."""

    def __init__(self, shared: Shared, state: PartitionState, tenure: Tenure) -> None:
        self._shared = shared
        self._state = state
        self._tenure = tenure
        self._named = {
            id_: definition
            for id_, definition in shared.app.schedules.items()
            if home_of(id_, shared.partitions) == state.partition
        }
        self._due: dict[str, Due] = {}
        self._ahead_ms: dict[str, int] = {}  # of the log's clock, at most: where a record came too early
        self._rings = self._ring

    def begin_all(self) -> None:
        """The partition is ours: every schedule goes on, with what it missed."""
        for id_ in {**self._named, **self._state.schedules}:
            self._look(id_)

    def forget_all(self) -> None:
        """Start nothing any more."""
        for id_ in {**self._named, **self._state.schedules}:
            self._shared.timers.disarm(("schedule", id_))
        self._due.clear()
        self._ahead_ms.clear()

    def carry_out(self, scheduled: Scheduled) -> None:
        """A record about a schedule was read back: tell of it, and see what comes next."""
        before, after = scheduled.before, scheduled.after
        if after is not None:
            self._tell(scheduled, after)
        if before is None or after is None or before.definition != after.definition:
            self._due.pop(scheduled.schedule, None)
        if scheduled.early_ms:
            now_ms = self._shared.clock.now_ms()
            self._ahead_ms[scheduled.schedule] = max(0, now_ms - scheduled.at_ms)
            self._arm(scheduled.schedule, now_ms + scheduled.early_ms)
        else:
            self._ahead_ms.pop(scheduled.schedule, None)
            self._look(scheduled.schedule)

    # --- what comes next -----------------------------------------------------------------------------------------------

    def _look(self, id_: str) -> None:
        if not self._tenure.open:
            return
        named, known = self._named.get(id_), self._state.schedules.get(id_)
        if named is None:
            if known is not None:
                self._unnamed(id_, known)
        elif known is None or known.definition != named or known.unnamed_ms is not None:
            self._tenure.propose(ScheduleSeen(schedule=id_, definition=named))
            self._arm(id_, self._shared.clock.now_ms() + _AGAIN_MS)
        elif known.paused_ms is not None:
            self._shared.timers.disarm(("schedule", id_))
        else:
            self._go_on(id_, known)

    def _unnamed(self, id_: str, known: ScheduleState) -> None:
        now_ms = self._shared.clock.now_ms()
        if known.unnamed_ms is not None and known.unnamed_ms + FORGOTTEN_MS > now_ms:
            self._arm(id_, known.unnamed_ms + FORGOTTEN_MS)
        else:
            self._tenure.propose(ScheduleUnnamed(schedule=id_))
            self._arm(id_, now_ms + _AGAIN_MS)

    def _go_on(self, id_: str, known: ScheduleState) -> None:
        spec = known.definition.spec
        due = self._due.get(id_)
        if due is None:
            due = self._due[id_] = Due(Slots(spec, known.active_ms), spec.misfire)
        now_ms = self._shared.clock.now_ms()
        ahead_ms = self._ahead_ms.get(id_, 0)
        match due.after(known.last_ms, now_ms - ahead_ms):
            case Wait(until_ms=until_ms):
                if until_ms is None:
                    self._shared.timers.disarm(("schedule", id_))
                else:
                    self._arm(id_, until_ms + ahead_ms)
            case Miss(until_ms=until_ms, due_ms=due_ms, count=count):
                self._tenure.propose(
                    SlotsMissed(schedule=id_, after_ms=known.last_ms, until_ms=until_ms, due_ms=due_ms, count=count)
                )
                self._arm(id_, now_ms + _AGAIN_MS)
            case Fire(at_ms=at_ms):
                self._start(id_, known, at_ms)
                self._arm(id_, now_ms + _AGAIN_MS)

    def _start(self, id_: str, known: ScheduleState, at_ms: int) -> None:
        maybe(FaultPoint.SLOT_DUE)
        start = slot_start(known.definition, Slot(schedule=id_, at_ms=at_ms, after_ms=known.last_ms))
        record = CommandRecord(id=SlotId(id_, at_ms), body=start)

        def written(_offset: int, error: HeadraceError | None) -> None:
            if error is not None and self._tenure.open:
                self._arm(id_, self._shared.clock.now_ms() + _FAILED_MS)

        self._shared.writers.runs(self._state.partition).put(NewRecord(value=encode(record)), written)
        maybe(FaultPoint.SLOT_QUEUED)

    def _arm(self, id_: str, due_at_ms: int) -> None:
        self._shared.timers.arm(("schedule", id_), due_at_ms, self._rings)

    def _ring(self, key: tuple[str, str], _due_at_ms: int) -> None:
        self._look(key[1])

    # --- telling ---------------------------------------------------------------------------------------------------------

    def _tell(self, scheduled: Scheduled, after: ScheduleState) -> None:
        observer, id_, workflow = self._shared.observer, scheduled.schedule, after.definition.workflow
        match scheduled.record:
            case Start(slot=Slot(at_ms=slot_ms)):
                maybe(FaultPoint.SLOT_READ)
                if scheduled.before is not None and after.skipped > scheduled.before.skipped:
                    observer.schedule_missed(
                        told_run.ScheduleMissed(
                            schedule=id_, workflow=workflow, slots=1, until_ms=slot_ms, reason=MissReason.OVERLAP
                        )
                    )
                    return
                observer.schedule_fired(
                    told_run.ScheduleFired(
                        schedule=id_,
                        workflow=workflow,
                        run=run_id(self._state.partition, SlotId(id_, slot_ms)),
                        slot_ms=slot_ms,
                        late_ms=max(0, scheduled.at_ms - slot_ms),
                    )
                )
            case SlotsMissed(until_ms=until_ms, count=count):
                bounded = after.definition.spec.misfire is Misfire.ALL
                observer.schedule_missed(
                    told_run.ScheduleMissed(
                        schedule=id_,
                        workflow=workflow,
                        slots=count,
                        until_ms=until_ms,
                        reason=MissReason.MISFIRE,
                        code=TOO_MANY_MISSED if bounded else "",
                        message=f"More than {MISSED_MAX} slots were missed: the newest are started." if bounded else "",
                    )
                )
            case PauseSchedule():
                observer.schedule_paused(told_run.SchedulePaused(schedule=id_, workflow=workflow))
            case ResumeSchedule():
                observer.schedule_resumed(told_run.ScheduleResumed(schedule=id_, workflow=workflow))
            case Start() | ScheduleSeen() | ScheduleUnnamed():
                pass
            case _:
                assert_never(scheduled.record)
