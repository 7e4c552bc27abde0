"""The runs of one partition that are awake: carries out what the fold and the woken coroutines ask for.

Every effect begins here, after the record that asks for it was read back. What is kept here is a cache: dropped at any moment, it is rebuilt from the state.
Called by `owner.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headrace.observability import observer as told
from headrace.service import run_report
from headrace.service.engine.instruction import (
    Advance,
    Begin,
    Close,
    Instruction,
    Joined,
    Park,
    Probe,
    Proven,
    Queued,
    Rearm,
    Send,
    TryAgain,
    Unpark,
)
from headrace.service.engine.interpreter import TIMEOUT_STEP, Turn
from headrace.service.engine.probation import STRIKES_MAX
from headrace.service.engine.run_state import Phase, RunState
from headrace.service.engine.state import PartitionState
from headrace.service.engine.step import CallStep, EmitStep, TimerStep
from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.command import Cancel
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    ParkReason,
    ProbePassed,
    RunEnded,
    RunParked,
    RunProbed,
    RunStatus,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)

if TYPE_CHECKING:
    from headrace.service.attempts import AttemptEnd
    from headrace.service.live_run import LiveRun
    from headrace.service.shared import Shared
    from headrace.service.tenure import Tenure

RUN_TOO_BIG = "HR4013"
_GRACE_EXTRA_MS = 1_000  # a successor waits this much longer than the giver
_TIMER_SKEW_MS = 1
_CANCELLED_STEPS_MAX = 1_000  # in one record: a big fan-out that is given up has more references than a record holds


class AwakeRuns:
    """`live` by run id; `held` are runs whose definition version is not loaded here. `ended` gets the results of attempts."""

    def __init__(self, shared: Shared, state: PartitionState, tenure: Tenure, ended: AttemptEnd) -> None:
        self.live: dict[str, LiveRun] = {}
        self.held: dict[str, str] = {}
        self._shared = shared
        self._state = state
        self._tenure = tenure
        self._ended = ended
        self._passed: set[str] = set()  # runs that have proven themselves under this token

    def carry_out(self, instruction: Instruction) -> None:
        """Do what a folded record asks for."""
        match instruction:
            case Advance(run=run, record=record, at_ms=at_ms):
                self._advance(run, record, at_ms)
            case Begin(run=run) | Unpark(run=run):
                if isinstance(instruction, Unpark):
                    self._shared.observer.run_resumed(told.RunResumed(run=run.id, workflow=run.start.workflow))
                self.begin(run)
            case Send(entry=entry):
                self._shared.outbox.send(self._tenure, self._state.partition, entry)
            case Close(run=run, ended=ended, at_ms=at_ms):
                self._close(run, ended, at_ms)
            case TryAgain(run=run, step=step, number=number, due_at_ms=due_at_ms):
                live = self.live.get(run.id)
                call = live.calls.get(step) if live is not None else None
                if live is not None and call is not None:
                    self._schedule(live, call, number, due_at_ms)
            case Rearm(run=run, step=step, due_at_ms=due_at_ms, early_ms=early_ms):
                self._arm(run, step, due_at_ms, skew_ms=early_ms + _TIMER_SKEW_MS)
            case Park(run=run, parked=parked):
                self._forget(run.id)
                self._shared.observer.run_parked(run_report.parked(run, parked))
            case Probe(run=run_id):
                self._wake_on_trial(run_id)
            case Proven(run=run_id):
                self._proven(run_id)
            case Queued(run=run):
                self._shared.admission.keep(run.id, run.size)
            case Joined():
                pass

    def begin(self, run: RunState) -> None:
        """Wake the run when there is room."""
        self._shared.admission.keep_no_more(run.id)
        self._shared.admission.ask(run.id, run.start.workflow, run.size, lambda: self._wake(run))

    def _wake(self, run: RunState) -> None:
        """Bring a run to life: from nothing, or by replaying what its coroutine has noticed."""
        if not self._tenure.open or self._state.runs.get(run.id) is not run or run.phase is not Phase.OPEN:
            self._shared.admission.idle(run.id)
            return
        if run.history and isinstance(run.history[0][0], Cancel):
            self._end_without_code(run)  # nothing is finished that could want an undo
            return
        probation = self._state.probation
        if probation.unclean and run.id not in self._passed:
            strikes = probation.strikes(run.id)
            if strikes >= STRIKES_MAX:
                self._park_as_poison(run, strikes)
                return
            if strikes or probation.probing(self._state.clock_ms):
                self._shared.probes.ask(run.id, strikes, lambda: self._probe(run.id))
                return
        self._wake_now(run)

    def _wake_now(self, run: RunState) -> None:
        maybe(FaultPoint.RUN_WAKING)
        live = self._shared.live_run(run)
        if live is None:
            self._hold(run)
            return
        self.live[run.id] = live
        if not run.history:
            self._shared.observer.run_started(run_report.started(live, self._shared.clock.now_ms()))
        if live.timeout_at_ms is not None and TIMEOUT_STEP not in run.settled:
            self._arm(run, TIMEOUT_STEP, live.timeout_at_ms)
        self._act(live, live.replay())

    def _hold(self, run: RunState) -> None:
        """Its version is not loaded: a cancel still ends it, anything else waits for an instance that has it."""
        self.held[run.id] = f"{run.start.workflow} {run.start.version}"
        self._rest(run.id)
        self._shared.observer.run_held(told.RunHeld(run=run.id, workflow=run.start.workflow, version=run.start.version))
        self._end_without_code(run)

    def _end_without_code(self, run: RunState) -> None:
        reason = run.cancelled_by()
        if reason is not None:
            self._tenure.propose(RunEnded(run=run.id, status=RunStatus.CANCELLED, error="Cancelled", message=reason))

    def _advance(self, run: RunState, record: Any, at_ms: int) -> None:
        live = self.live.get(run.id)
        if live is not None:
            if isinstance(record, AttemptSucceeded | AttemptFailed):
                if live.delayed or self._shared.attempts.makes(run.id, record.step):
                    self._drop_step(live, record.step)  # a result that was delivered makes the repetition needless
            elif isinstance(record, Cancel):
                maybe(FaultPoint.CANCEL_READ)
            elif isinstance(record, TimerFired) and record.step != TIMEOUT_STEP:
                armed_at_ms = live.timers.get(record.step, run.started_at_ms)
                self._shared.observer.timer_fired(
                    run_report.timer_fired(live, record.step, armed_at_ms, record.due_at_ms, at_ms)
                )
            if run.history_bytes > self._shared.settings.limits.run_bytes:
                self._end_too_big(run)
                return
            self._act(live, live.feed(record, at_ms))
        elif run.id in self.held:
            self._end_without_code(run)
        # else: unadmitted; it will find the record in its history when its turn comes

    def _end_too_big(self, run: RunState) -> None:
        """A run whose history would not fit into memory: it ends here, whatever it was about to do. Its finished tasks are not undone."""
        limit = self._shared.settings.limits.run_bytes
        self._forget(run.id)
        self._tenure.propose(
            RunEnded(
                run=run.id,
                status=RunStatus.FAILED,
                error="LimitExceeded",
                message=f"{RUN_TOO_BIG}: the run's results have {run.history_bytes} bytes, limits.run_bytes is {limit}.",
            )
        )

    def _act(self, live: LiveRun, turn: Turn) -> None:
        run = live.state
        if turn.parked is not None:
            self._tenure.propose(turn.parked)
            maybe(FaultPoint.RUN_PARKING)
            return
        for step in turn.issued:
            if isinstance(step, CallStep):
                self._call(live, step)
            elif isinstance(step, TimerStep):
                if run.timers.get(step.ref) != step.due_at_ms:
                    self._shared.observer.timer_armed(run_report.timer_armed(run, step.ref, step.due_at_ms))
                    self._tenure.propose(TimerArmed(run=run.id, step=step.ref, due_at_ms=step.due_at_ms))
                self._arm(run, step.ref, step.due_at_ms)
            elif isinstance(step, EmitStep):
                self._tenure.propose(
                    Emitted(
                        run=run.id,
                        step=step.ref,
                        topic=step.topic,
                        type=step.type,
                        data=msgspec.Raw(step.data),
                        key=step.key,
                        subject=step.subject,
                    )
                )
                maybe(FaultPoint.EMIT_QUEUED)
        if turn.cancelled:
            for ref in turn.cancelled:
                self._drop_step(live, ref)
            for first in range(0, len(turn.cancelled), _CANCELLED_STEPS_MAX):
                steps = turn.cancelled[first : first + _CANCELLED_STEPS_MAX]
                self._tenure.propose(StepsCancelled(run=run.id, steps=tuple(steps)))
        if turn.ended is not None:
            self._tenure.propose(turn.ended)
            maybe(FaultPoint.RUN_ENDING)
        elif live.waits():
            self._rest(run.id)

    def _call(self, live: LiveRun, step: CallStep[Any]) -> None:
        run = live.state
        live.calls[step.ref] = step
        number, due_at_ms = 1, 0
        if run.tries:
            tries = run.tries.get(step.ref)
            if tries is not None:
                number, due_at_ms = tries.failed + 1, tries.not_before_ms
        if self._state.given:
            given = self._state.given.get((run.id, step.ref))
            if given is not None and given.number == number:
                due_at_ms = max(due_at_ms, given.until_ms + _GRACE_EXTRA_MS)
        self._schedule(live, step, number, due_at_ms)

    def _schedule(self, live: LiveRun, step: CallStep[Any], number: int, due_at_ms: int) -> None:
        if due_at_ms and due_at_ms > self._shared.clock.now_ms():
            live.delayed.add(step.ref)
            self._shared.timers.arm((live.state.id, step.ref), due_at_ms, lambda: self._start_later(live, step, number))
            if live.waits():
                self._rest(live.state.id)
        else:
            self._start(live, step, number)

    def _start_later(self, live: LiveRun, step: CallStep[Any], number: int) -> None:
        maybe(FaultPoint.RETRY_DUE)
        self._start(live, step, number)

    def _start(self, live: LiveRun, step: CallStep[Any], number: int) -> None:
        run = live.state
        if (
            step.ref in live.delayed
        ):  # its wait may be another number's: a failure was delivered before the grace was over
            live.delayed.discard(step.ref)
            self._shared.timers.disarm((run.id, step.ref))
        if not self._tenure.open or self.live.get(run.id) is not live:
            return
        if self._tenure.has_result(run.id, step.ref, number):
            return  # it has ended; its outcome is on its way
        self._shared.admission.active(run.id, run.start.workflow)
        self._shared.attempts.start(self._ended, live, step, number)

    def _drop_step(self, live: LiveRun, ref: str) -> None:
        self._shared.timers.disarm((live.state.id, ref))
        live.delayed.discard(ref)
        if live.calls.pop(ref, None) is not None:
            self._shared.attempts.cancel(live.state.id, ref)

    def _close(self, run: RunState, ended: RunEnded, at_ms: int) -> None:
        maybe(FaultPoint.RUN_CLOSED)
        live = self._forget(run.id)
        self.held.pop(run.id, None)
        self._shared.observer.run_finished(run_report.finished(run, live, ended, at_ms))

    def _arm(self, run: RunState, step: str, due_at_ms: int, *, skew_ms: int = 0) -> None:
        def fire() -> None:
            maybe(FaultPoint.TIMER_RANG)
            self._tenure.propose(TimerFired(run=run.id, step=step, due_at_ms=due_at_ms))

        live = self.live.get(run.id)
        if live is not None:
            live.timers.setdefault(step, self._shared.clock.now_ms())
        self._shared.timers.arm((run.id, step), due_at_ms + skew_ms, fire)

    # --- probation ---------------------------------------------------------------------------------------------------

    def _probe(self, run_id: str) -> None:
        self._tenure.propose(RunProbed(run=run_id))
        maybe(FaultPoint.PROBE_QUEUED)

    def _wake_on_trial(self, run_id: str) -> None:
        """The log says that the run is about to be woken."""
        maybe(FaultPoint.PROBE_READ)
        run = self._state.runs.get(run_id)
        if run is None or run.phase is not Phase.OPEN:
            self._shared.probes.over(run_id)
        else:
            self._wake_now(run)

    def _proven(self, run_id: str) -> None:
        self._passed.add(run_id)
        self._shared.probes.over(run_id)

    def _park_as_poison(self, run: RunState, strikes: int) -> None:
        """It is not woken again: its code may end this process too."""
        self._shared.admission.idle(run.id)
        if run.cancelled_by() is not None:
            self._end_without_code(run)
            return
        found = f"the process ended {strikes} times while this run was being woken, the last {strikes - 1} times alone"
        expected = "a run that ends no process"
        self._tenure.propose(RunParked(run=run.id, reason=ParkReason.POISON, expected=expected, found=found))
        maybe(FaultPoint.RUN_PARKING)

    def _rest(self, run_id: str) -> None:
        """Nothing is being done for the run: its slot is free, and if it was on trial, it has passed."""
        self._shared.admission.idle(run_id)
        if self._shared.probes.open and run_id in self._shared.probes.open:
            self._tenure.propose(ProbePassed(run=run_id))

    def end_trials(self) -> None:
        """Nothing is woken by this token any more."""
        self._passed.clear()
        self._shared.probes.forget(self._state.runs)

    # --- forgetting --------------------------------------------------------------------------------------------------

    def _forget(self, run_id: str) -> LiveRun | None:
        self._passed.discard(run_id)
        live = self.live.pop(run_id, None)
        if live is not None:
            for ref in live.calls:
                self._shared.attempts.cancel(run_id, ref)
                self._shared.timers.disarm((run_id, ref))
            for ref in live.timers:
                self._shared.timers.disarm((run_id, ref))
            live.close()
        self._shared.admission.idle(run_id)
        return live

    def forget_all(self) -> None:
        """Coroutines are a cache: drop them all. Attempts that run stay, for their results are facts."""
        self.end_trials()
        for run_id, live in list(self.live.items()):
            for ref in (*live.calls, *live.timers):
                self._shared.timers.disarm((run_id, ref))
            live.close()
        self._shared.admission.forget(set(self.live) | set(self._state.runs))
        self.live.clear()
        self.held.clear()

    def drop(self) -> None:
        """The partition is not ours any more: nothing of it goes on here."""
        self.end_trials()
        for run_id in list(self.live):
            self._forget(run_id)
        self._shared.admission.forget(set(self._state.runs))
