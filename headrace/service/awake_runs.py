"""The runs of one partition that are awake: carries out what the fold and the woken coroutines ask for.

Every effect begins here, after the record that asks for it was read back. What is kept here is a cache: dropped at any moment, it is rebuilt from the state.
Called by `owner.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.service import run_report
from headrace.service.engine.instruction import (
    Advance,
    Begin,
    Close,
    Decided,
    Instruction,
    Joined,
    Park,
    Probe,
    Proven,
    Queued,
    ReadAnew,
    Rearm,
    Requested,
    Scheduled,
    Send,
    TryAgain,
    Unpark,
)
from headrace.service.engine.interpreter import TIMEOUT_STEP
from headrace.service.engine.probation import STRIKES_MAX
from headrace.service.engine.run_state import Phase, RunState
from headrace.service.engine.state import Given, PartitionState
from headrace.service.engine.step import ApprovalStep, CallStep, ChildStep, EmitStep, TimerStep
from headrace.service.engine.turn import Turn
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.idle_runs import IdleRuns
from headrace.service.run_endings import RunEndings
from headrace.service.scheduler import Scheduler
from headrace.service.waiting_starts import Asked, WaitingStarts
from headrace.topics.approval import is_approval
from headrace.topics.command import Approve, Cancel
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
    RunProbed,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.trace_context import kept_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.attempts import AttemptEnd
    from headrace.service.live_run import LiveRun
    from headrace.service.shared import Shared
    from headrace.service.tenure import Tenure
    from headrace.topics.errors import HeadraceError
    from headrace.topics.trace_context import TraceContext

_GRACE_EXTRA_MS = 1_000  # a successor waits this much longer than the giver
_TIMER_SKEW_MS = 1
_SLICE_S = 0.01  # the longest stretch of beginning runs before the loop gets its turn
_CANCELLED_STEPS_MAX = 1_000  # in one record: a big fan-out that is given up has more references than a record holds


class AwakeRuns:
    """`live` by run id; `held` are runs whose definition version is not loaded here, with their workflow; `asked` those that wait for room to begin.

    Open runs that are in none of them are `idle`. `ended` gets the results of attempts; `lost` is called when the log does not have what the state knows.
    """

    def __init__(
        self,
        shared: Shared,
        state: PartitionState,
        tenure: Tenure,
        ended: AttemptEnd,
        lost: Callable[[HeadraceError], None],
    ) -> None:
        self.live: dict[str, LiveRun] = {}
        self.held: dict[str, str] = {}
        self.starts = WaitingStarts(shared, state, self._wake, lost)
        self.asked = self.starts.asked
        self.idle = IdleRuns(shared, state, self.live, self._wake_again, self._fire)
        self.scheduler = Scheduler(shared, state, tenure)
        self._shared = shared
        self._state = state
        self._tenure = tenure
        self._ended = ended
        self._passed: set[str] = set()  # runs that have proven themselves under this token
        self._endings = RunEndings(shared, tenure)
        self._drops_at_once = not shared.settings.worker.idle_after_ms
        self._to_begin: deque[str] = deque()
        self._fires, self._retries = self._fire, self._retry  # one bound method for all runs

    def carry_out(self, instruction: Instruction) -> None:
        """Do what a folded record asks for."""
        match instruction:
            case Advance(run=run, record=record, at_ms=at_ms):
                self._advance(run, record, at_ms)
            case Begin(run=run) | Unpark(run=run):
                if isinstance(instruction, Unpark):
                    self._shared.observer.run_resumed(run_report.resumed(run, self._anchor(run).traceparent))
                self.begin(run)
            case Send(entry=entry):
                self._shared.outbox.send(self._tenure, self._state.partition, entry)
            case Close(run=run, ended=ended, at_ms=at_ms):
                self._close(run, ended, at_ms)
            case TryAgain(run=run, step=step, number=number, due_at_ms=due_at_ms):
                live = self.live.get(run.id)
                call = live.calls.get(step) if live is not None else None
                if live is None:
                    self._wake_if_idle(run.id)
                elif call is not None:
                    self._schedule(live, call, number, due_at_ms)
                    if live.waits():
                        self._rest(live)
            case Rearm(run=run, step=step, due_at_ms=due_at_ms, early_ms=early_ms):
                self._arm_again(run, step, due_at_ms, skew_ms=early_ms + _TIMER_SKEW_MS)
            case Park(run=run, parked=parked):
                self._forget(run.id)
                self._shared.observer.run_parked(run_report.parked(run, parked, self._anchor(run).traceparent))
                self._state.runs.pack(run.id)
            case Probe(run=run_id):
                self._wake_on_trial(run_id)
            case Proven(run=run_id):
                self._proven(run_id)
            case ReadAnew():
                self._shared.epochs.learn_from(self._state.dedupe)
            case Queued(run=run):
                self.starts.keep(run)
            case Scheduled():
                self.scheduler.carry_out(instruction)
            case Joined():
                pass
            case Requested(run=run, request=asked):
                self._shared.observer.approval_requested(run_report.requested(run, asked, self._anchor(run)))
            case Decided(run=run):
                self._shared.observer.approval_decided(run_report.decided(instruction, self._anchor(run)))

    def begin(self, run: RunState) -> None:
        """Wake the run when there is room."""
        self._shared.admission.keep_no_more(run.id)
        self.starts.ask(run)

    def begin_all(self) -> None:
        """The partition is ours: every open run goes on. Those that rest, by the log, only get their wake-up."""
        self._shared.epochs.learn_from(self._state.dedupe)
        self.scheduler.begin_all()
        self._to_begin = deque(self._state.runs)
        self._begin_some()

    def _begin_some(self) -> None:
        loop = asyncio.get_running_loop()
        slice_ends = loop.time() + _SLICE_S
        while self._to_begin:
            self._begin_or_rest(self._to_begin.popleft())
            if loop.time() > slice_ends and self._to_begin:
                loop.call_soon(self._begin_some)
                return

    def _begin_or_rest(self, run_id: str) -> None:
        run = self._state.runs.look(run_id)
        if run is None or run_id in self.live or run_id in self.asked or run_id in self.idle.waking:
            return  # it has ended, or has begun meanwhile
        if run.phase is Phase.QUEUED:
            self.starts.keep(run)
        elif run.phase is Phase.OPEN:
            start = run.start
            loaded = self._shared.app.workflow(start.namespace, start.workflow, start.version) is not None
            if run.rests and loaded:
                timeout_at_ms = self._shared.timeout_at_ms(run)
                alarms = [*run.timers.values(), *([] if timeout_at_ms is None else [timeout_at_ms])]
                self.idle.sleep_until(run_id, min(alarms, default=None))
                self._state.runs.shrink(run_id)
            else:
                self.starts.ask(run)

    def _wake_again(self, run_id: str) -> None:
        self._wake(run_id, again=True)

    def _wake(self, run_id: str, *, again: bool = False) -> None:
        """Bring a run to life: from nothing, or by replaying what its coroutine has noticed. `again`: it was alive here before."""
        run = self._state.runs.get(run_id)
        if not self._tenure.open or run is None or run.phase is not Phase.OPEN or run_id in self.live:
            self._shared.admission.idle(run_id)
            return
        if run_id in self._endings.said:
            self._shared.admission.idle(run_id)
            return
        if run.history and isinstance(run.history[0][0], Cancel):
            self._endings.cancelled(run)  # nothing is finished that could want an undo
            return
        probation = self._state.probation
        on_trial = run_id in self._shared.probes.open  # it has waited since, and the log does not say so yet
        if probation.unclean and run_id not in self._passed and not on_trial:
            strikes = probation.strikes(run.id)
            if strikes >= STRIKES_MAX:
                self._park_as_poison(run, strikes)
                return
            if strikes or probation.probing(self._state.clock_ms):
                self.asked[run_id] = Asked(run.start.workflow)
                self._shared.probes.ask(run_id, strikes, lambda: self._probe(run_id))
                return
        self._wake_now(run, again=again)

    def _wake_now(self, run: RunState, *, again: bool = False) -> None:
        maybe(FaultPoint.RUN_WAKING)
        live = self._shared.live_run(run)
        if live is None:
            self._hold(run)
            return
        self.live[run.id] = live
        if not (again or run.history or run.timers or run.tries or run.approvals):
            self._shared.observer.run_started(run_report.started(live, self._shared.clock.now_ms()))
        if live.timeout_at_ms is not None and TIMEOUT_STEP not in run.settled:
            self._arm(live, TIMEOUT_STEP, live.timeout_at_ms, run.began_at_ms)
        self._act(live, live.replay())
        if self._drops_at_once:
            self.idle.drop_at_once()

    def _wake_if_idle(self, run_id: str) -> None:
        """Something has happened to a run that is not live: it shall notice. One that waits for room will find it in its history."""
        if run_id not in self.held and run_id not in self.asked:
            self.idle.wake(run_id)

    def put_away(self) -> None:
        """Runs that were only looked up go on as bytes."""
        self._state.runs.put_away(self.live)

    def _hold(self, run: RunState) -> None:
        """Its version is not loaded: a cancel still ends it, anything else waits for an instance that has it."""
        self.held[run.id] = run.start.workflow
        self._free(run.id)
        self._shared.observer.run_held(run_report.held(run, self._anchor(run).traceparent))
        self._endings.cancelled(run)
        self._state.runs.pack(run.id)

    def _advance(self, run: RunState, record: Any, at_ms: int) -> None:
        live = self.live.get(run.id)
        if live is not None:
            if isinstance(record, AttemptSucceeded | AttemptFailed):
                if live.delayed or self._shared.attempts.makes(run.id, record.step):
                    self._drop_step(live, record.step)  # a result that was delivered makes the repetition needless
            elif isinstance(record, Cancel):
                maybe(FaultPoint.CANCEL_READ)
            elif isinstance(record, Approve):
                self._shared.timers.disarm((run.id, record.step))
            elif isinstance(record, TimerFired) and _is_sleep(record.step):
                armed_at_ms = live.timers.get(record.step, run.started_at_ms)
                self._shared.observer.timer_fired(
                    run_report.timer_fired(live, record.step, armed_at_ms, record.due_at_ms, at_ms)
                )
            if run.history_bytes > self._shared.settings.limits.run_bytes:
                self._forget(run.id)
                self._endings.too_big(run)
                return
            self._act(live, live.feed(record, at_ms))
            if self._drops_at_once:
                self.idle.drop_at_once()
        elif run.id in self.held:
            self._endings.cancelled(run)
        elif run.id not in self.asked:
            self._tell_fired(run, record, at_ms)
            self._wake_if_idle(run.id)
        # else: unadmitted; it will find the record in its history when its turn comes

    def _tell_fired(self, run: RunState, record: Any, at_ms: int) -> None:
        """A timer's outcome came back after its run was dropped."""
        if isinstance(record, TimerFired) and _is_sleep(record.step):
            live = self._shared.live_run(run)
            if live is not None:
                self._shared.observer.timer_fired(
                    run_report.timer_fired(live, record.step, run.started_at_ms, record.due_at_ms, at_ms)
                )

    def _anchor(self, run: RunState) -> TraceContext:
        """The trace of a run that may not be live."""
        start = run.start
        producer = kept_context(start.traceparent, start.tracestate)
        from_kafka = start.event is not None
        return self._shared.contexts.anchor(run.id, producer, from_kafka=from_kafka, awaited=start.awaited)

    def _act(self, live: LiveRun, turn: Turn) -> None:
        run = live.state
        if turn.parked is not None:
            self._tenure.propose(turn.parked)
            maybe(FaultPoint.RUN_PARKING)
            return
        waits: list[TimerStep | ApprovalStep] = []
        for step in turn.issued:
            if isinstance(step, CallStep):
                self._call(live, step)
            elif isinstance(step, TimerStep | ApprovalStep):
                waits.append(step)
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
            elif isinstance(step, ChildStep):
                self._start_child(live, step)
        if turn.cancelled:
            for ref in turn.cancelled:
                self._drop_step(live, ref)
            for first in range(0, len(turn.cancelled), _CANCELLED_STEPS_MAX):
                steps = turn.cancelled[first : first + _CANCELLED_STEPS_MAX]
                self._tenure.propose(StepsCancelled(run=run.id, steps=tuple(steps)))
        if waits:
            self._wait(live, waits, rests=turn.ended is None)
        if turn.ended is not None:
            self._tenure.propose(self._endings.masked(turn.ended))
            maybe(FaultPoint.RUN_ENDING)
        elif live.waits():
            self._rest(live)

    def _start_child(self, live: LiveRun, step: ChildStep[Any]) -> None:
        namespace, workflow, version = step.workflow.id
        self._tenure.propose(
            ChildStarted(
                run=live.state.id,
                step=step.ref,
                namespace=namespace,
                workflow=workflow,
                version=version,
                input=msgspec.Raw(step.input),
                awaited=step.awaited,
                key=step.key,
                policy=step.workflow.on_conflict,
                timeout_ms=step.workflow.timeout_ms,
                traceparent=live.traceparent,
                tracestate=live.tracestate,
            )
        )
        maybe(FaultPoint.EMIT_QUEUED)

    def _rest(self, live: LiveRun) -> None:
        """It waits: others may work, and soon it is kept as bytes."""
        self._free(live.state.id)
        if not live.held:
            self.idle.rest(live)

    def _wait(self, live: LiveRun, waits: list[TimerStep | ApprovalStep], *, rests: bool) -> None:
        """Arm timers, ask people. What the log does not know of it is said there; with the last one, whether the run waits for nothing else."""
        run = live.state
        rests = rests and not live.calls and live.waits()
        unknown = [step for step in waits if not self._is_known(run, step)]
        for step in unknown:
            rests_at = len(run.history) if rests and step is unknown[-1] else -1
            if isinstance(step, TimerStep):
                self._shared.observer.timer_armed(run_report.timer_armed(live, step.ref, step.due_at_ms))
                self._tenure.propose(TimerArmed(run=run.id, step=step.ref, due_at_ms=step.due_at_ms, rests_at=rests_at))
            else:
                self._tenure.propose(
                    ApprovalRequested(
                        run=run.id,
                        step=step.ref,
                        title=step.title,
                        roles=step.roles,
                        due_at_ms=step.due_at_ms,
                        rests_at=rests_at,
                    )
                )
        for step in waits:
            if step.due_at_ms is not None:
                self._arm(live, step.ref, step.due_at_ms, step.issued_at_ms)

    def _is_known(self, run: RunState, step: TimerStep | ApprovalStep) -> bool:
        """Whether the log has it, as the code wants it."""
        if isinstance(step, TimerStep):
            return run.timers.get(step.ref) == step.due_at_ms
        request = self._state.approvals.get(f"{run.id}{step.ref}")
        return request is not None and step.asks(request)

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
            if given is not None and given.number == number and self._still_runs(run.id, step.ref, given):
                due_at_ms = max(due_at_ms, given.until_ms + _GRACE_EXTRA_MS)
        self._schedule(live, step, number, due_at_ms)

    def _still_runs(self, run: str, step: str, given: Given) -> bool:
        """Elsewhere: its giver is in the group. What we gave ourselves, and have back, goes on here."""
        return self._shared.is_other_member(given.giver, unknown=True) and not self._shared.attempts.makes(run, step)

    def repeat_for_the_gone(self) -> None:
        """Attempts whose giver has left the group are begun now, not when their grace is over."""
        for (run_id, ref), given in list(self._state.given.items()):
            if not self._still_runs(run_id, ref, given):
                self._repeat_now(run_id, ref, given.number)

    def _repeat_now(self, run_id: str, ref: str, number: int) -> None:
        live = self.live.get(run_id)
        if live is None:
            self._wake_if_idle(run_id)
            return
        step, tries = live.calls.get(ref), live.state.tries.get(ref)
        if step is not None and ref in live.delayed and number == (1 if tries is None else tries.failed + 1):
            self._schedule(live, step, number, 0 if tries is None else tries.not_before_ms)

    def _schedule(self, live: LiveRun, step: CallStep[Any], number: int, due_at_ms: int) -> None:
        if due_at_ms and due_at_ms > self._shared.clock.now_ms():
            live.delayed.add(step.ref)
            self._shared.timers.arm((live.state.id, step.ref), due_at_ms, self._retries)
        else:
            self._start(live, step, number)

    def _retry(self, key: tuple[str, str], _due_at_ms: int) -> None:
        """A wait between two attempts is over."""
        maybe(FaultPoint.RETRY_DUE)
        live = self.live.get(key[0])
        step = live.calls.get(key[1]) if live is not None else None
        if live is not None and step is not None:
            tries = live.state.tries.get(step.ref)
            self._start(live, step, 1 if tries is None else tries.failed + 1)

    def _start(self, live: LiveRun, step: CallStep[Any], number: int) -> None:
        run = live.state
        # its wait may be another number's: a failure was delivered before the grace was over
        if step.ref in live.delayed:
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
        live.calls.pop(ref, None)
        self._shared.attempts.cancel(live.state.id, ref)  # also one that was begun when the run was alive here before

    def _close(self, run: RunState, ended: RunEnded, at_ms: int) -> None:
        maybe(FaultPoint.RUN_CLOSED)
        live = self._forget(run.id)
        self.held.pop(run.id, None)
        self._endings.said.discard(run.id)
        report = (
            run_report.finished_unseen(run, self._anchor(run), ended, at_ms)
            if live is None
            else run_report.finished(live, ended, at_ms)
        )
        self._shared.observer.run_finished(report)

    def _arm(self, live: LiveRun, step: str, due_at_ms: int, armed_at_ms: int) -> None:
        live.timers[step] = armed_at_ms
        self._shared.timers.arm((live.state.id, step), due_at_ms, self._fires)

    def _fire(self, key: tuple[str, str], due_at_ms: int) -> None:
        """A timer is due: say so in the log."""
        maybe(FaultPoint.TIMER_RANG)
        self._tenure.propose(TimerFired(run=key[0], step=key[1], due_at_ms=due_at_ms))

    def _arm_again(self, run: RunState, step: str, due_at_ms: int, *, skew_ms: int) -> None:
        """A timer's outcome was early by the log's clock."""
        live = self.live.get(run.id)
        if live is not None:
            live.timers.setdefault(step, run.started_at_ms)
            self._shared.timers.arm((run.id, step), due_at_ms + skew_ms, lambda key, _due: self._fire(key, due_at_ms))
        elif run.id in self.idle.waking:
            self.idle.overdue(run.id)
        elif run.id not in self.held and run.id not in self.asked:
            wakes_at_ms = self._shared.timers.due_at_ms(run.id)
            if wakes_at_ms is None or wakes_at_ms > due_at_ms + skew_ms:
                self.idle.sleep_until(run.id, due_at_ms + skew_ms)

    # --- probation ---------------------------------------------------------------------------------------------------

    def _probe(self, run_id: str) -> None:
        self._tenure.propose(RunProbed(run=run_id))
        maybe(FaultPoint.PROBE_QUEUED)

    def _wake_on_trial(self, run_id: str) -> None:
        """The log says that the run is about to be woken."""
        maybe(FaultPoint.PROBE_READ)
        self.asked.pop(run_id, None)
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
            self._endings.cancelled(run)
            return
        found = f"the process ended {strikes} times while this run was being woken, all but the first time alone"
        expected = "a run that ends no process"
        self._tenure.propose(RunParked(run=run.id, reason=ParkReason.POISON, expected=expected, found=found))
        maybe(FaultPoint.RUN_PARKING)

    def _free(self, run_id: str) -> None:
        """Nothing is being done for the run: its slot is free, and if it was on trial, it has passed."""
        self._shared.admission.idle(run_id)
        if self._shared.probes.open and run_id in self._shared.probes.open:
            self._tenure.propose(ProbePassed(run=run_id))

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
        else:
            self.idle.forget(run_id)
            self.starts.forget(run_id)
        self._shared.admission.idle(run_id)
        return live

    def _all(self) -> set[str]:
        """Every run that may have a slot or a trial: some have ended since, in the state, and nobody has been told."""
        return {*self.live, *self._state.runs, *self._endings.said, *self.asked}

    def forget_all(self) -> None:
        """Coroutines are a cache: drop them all. Attempts that run stay, for their results are facts; runs that still want a held one offer it anew."""
        ours = self._all()
        self._passed.clear()
        self._shared.probes.forget(ours)  # nothing is woken by this token any more
        self._shared.attempts.give_up_waiting(self._ended)
        for run_id, live in list(self.live.items()):
            for ref in (*live.calls, *live.timers):
                self._shared.timers.disarm((run_id, ref))
            live.close()
        self._shared.admission.forget(ours)
        self.idle.forget_all()
        self.live.clear()
        self.held.clear()
        self.starts.forget_all()
        self._endings.said.clear()
        self._to_begin.clear()
        self.scheduler.forget_all()


def _is_sleep(step: str) -> bool:
    """Whether a timer of this step is neither the run's own nor an approval's deadline."""
    return step != TIMEOUT_STEP and not is_approval(step)
