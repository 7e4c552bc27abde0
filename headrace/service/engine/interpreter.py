"""The interpreter: drives one run's coroutine by the records of the log, without an event loop.

Same workflow, same start, same records: same steps, anywhere. A live interpreter is a cache of folded records; dropping it at any moment changes nothing.
Called by `service/live_run.py`. What it returns, a `Turn`, is what the run asks for now; nothing here acts.

    BODY ──returns──► DRAINING ──open steps done──► OVER: succeeded
      │                  │ an unawaited step failed      ▲
      └─ raises, cancel, timeout, refused output         │ failed, cancelled, timed_out, compensated
                         ▼                               │
                     STOPPING ──open steps cancelled──► UNDOING
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

import msgspec

from headrace.handlers.message import NAME_BYTES_MAX, message_of, one_line
from headrace.handlers.payload import PayloadTooLarge
from headrace.service.engine.approval import Decision, decided, expired, may_decide
from headrace.service.engine.branch import Branch
from headrace.service.engine.compensation import Compensation
from headrace.service.engine.divergence import FOR_RUN_ALONE, Diverged, decoded, describe, expected_by, found_instead
from headrace.service.engine.failure import child_failed, output_refused, task_failed
from headrace.service.engine.limit import RunLimits, check_depth, too_many_steps
from headrace.service.engine.run import Run
from headrace.service.engine.run_state import ChildBegan, Woke
from headrace.service.engine.step import ApprovalStep, CallStep, ChildStep, EmitStep, Leaf, Step, TimerStep, Watcher
from headrace.service.engine.turn import Turn
from headrace.topics.command import Approve, Cancel, ChildEnded
from headrace.topics.errors import Cancelled, NotDeterministic, TaskFailed
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutputRefused,
    ParkReason,
    RunEnded,
    RunParked,
    RunStatus,
    StepsCancelled,
    TimerFired,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from headrace.service.engine.run_state import Copied, Retried
    from headrace.service.engine.workflow_code import Code
    from headrace.topics.event import Event

L = TypeVar("L", bound=Leaf[Any])
S = TypeVar("S", bound=Step[Any])

TIMEOUT_STEP = "/timeout"
"""The reference of the run's own timer."""

DEFAULT_LIMITS = RunLimits()

_DEADLOCK = "The workflow waits for steps that wait for each other; nothing can wake it."


class _Phase(IntEnum):
    BODY = auto()  # the workflow's own code runs
    DRAINING = auto()  # the body has returned; open steps finish
    STOPPING = auto()  # the body is over for good; open steps are being cancelled
    UNDOING = auto()  # compensations, one after the other
    OVER = auto()
    CLOSED = auto()  # the shell has dropped it


_BODY, _DRAINING = _Phase.BODY, _Phase.DRAINING  # attributes of an Enum cost, and these are looked at all the time


class Interpreter:
    """One run, alive. `begin` once, then `feed` each record in log order; or `replay` a whole history."""

    def __init__(
        self,
        code: Code,
        *,
        run_id: str,
        key: str,
        event: Event[Any] | None,
        raw_input: bytes,
        began_at_ms: int,
        limits: RunLimits = DEFAULT_LIMITS,
        retried: Retried | None = None,
        depth: int = 0,
    ) -> None:
        self._code = code
        self._run_id = run_id
        self._input = raw_input
        self._run = Run(self, run_id, key, event, depth)
        # of random numbers: a retry has those of the run before
        self.seed = run_id if retried is None else retried.first
        self._copied = None if retried is None else {record.step: record for record in retried.copied}
        self.limits = limits
        self.clock_ms = began_at_ms
        self.news: deque[tuple[Watcher, Step[Any]]] = deque()  # of steps that have settled, for who waits for them
        self.unseen: dict[Step[Any], None] = {}  # steps that failed and that nobody has looked at, in log order
        self._phase = _BODY
        self._body: Branch[Any] = Branch(self, "")
        self._branch: Branch[Any] | None = None  # the one that is running
        self._ready: deque[Branch[Any]] = deque()
        self._branches: dict[Branch[Any], None] = {}  # open ones beside the body
        self._open: dict[str, Leaf[Any]] = {}
        self._emits: dict[str, EmitStep] = {}  # done for the code, not in the log yet
        self._past: set[str] = set()  # references of steps that the log has settled: their late records are ignored
        self._issued: dict[str, Leaf[Any]] = {}
        self._cancelled: list[str] = []
        self._steps = 0
        self._result = b""
        self._status = RunStatus.FAILED
        self._failure: BaseException | None = None
        self._compensation = Compensation()
        self._cancel: Cancel | None = None
        self._outcome: RunEnded | None = None
        self._told = False  # the outcome was in a turn
        self._parked: RunParked | None = None

    # --- driven by the owner ---------------------------------------------------------------------------------------

    def begin(self) -> Turn:
        """Run the body up to its first suspension."""
        try:
            self._body.coroutine = self._code.begin(self._run, self._input)
        except NotDeterministic as forbidden:
            self._park(self._body.ref, FOR_RUN_ALONE, message_of(forbidden))
        except BaseException as error:  # noqa: BLE001 - a model's validators are user code
            self._stop(RunStatus.FAILED, error)
        else:
            self.ready(self._body)
        return self._go_on()

    def feed(self, record: Woke, at_ms: int) -> Turn:
        """Notice one accepted record. A record that does not fit the code parks the run; a parked run notices only that it is cancelled."""
        if self._parked is not None and not isinstance(record, Cancel):
            return Turn()
        self.clock_ms = max(self.clock_ms, at_ms)
        try:
            self._notice(record)
        except Diverged as diverged:
            expected = diverged.expected or expected_by(record, diverged.step)
            self._park(diverged.step, expected, diverged.found)
        return self._go_on()

    def confirm(self, emitted: Emitted, at_ms: int) -> Turn:
        """The same as `feed` for an event that the outbox has: the code has gone on without it, nothing of it runs."""
        if self._parked is not None:
            return Turn()
        self.clock_ms = max(self.clock_ms, at_ms)
        try:
            self._confirm(emitted)
        except Diverged as diverged:
            self._park(diverged.step, diverged.expected or expected_by(emitted, diverged.step), diverged.found)
        return self._turn()

    def replay(
        self,
        history: Iterable[tuple[Woke, int]],
        *,
        timers: Iterable[str] = (),
        tried: Iterable[str] = (),
        approvals: Iterable[str] = (),
    ) -> Turn:
        """Begin and feed a whole history; then everything that is open is asked for again.

        `timers`, `tried` and `approvals` are steps that the log knows to be open: armed, failed and not over, or asked. The code must have made each of them.
        """
        self.begin()
        for record, at_ms in history:
            self.feed(record, at_ms)
        try:
            for ref in timers:
                self._made(ref, TimerStep, f"a timer at {ref}")
            for ref in tried:
                self._made(ref, CallStep, f"a task at {ref}")
            for ref in approvals:
                self._made(ref, ApprovalStep, f"an approval at {ref}")
        except Diverged as diverged:
            self._park(diverged.step, diverged.expected, diverged.found)
        if self._parked is not None:
            return Turn(parked=self._parked)
        return Turn(
            issued=[step for step in (*self._emits.values(), *self._open.values()) if _is_to_be_said(step)],
            cancelled=[ref for ref, step in self._open.items() if step.cancelling],
            ended=self._outcome,
        )

    def park(self, found: str) -> Turn:
        """The run did what a workflow may not, as others have seen: whatever it made of that does not count."""
        self._outcome = None
        self._told = False
        self._park(self._body.ref, FOR_RUN_ALONE, found)
        return self._turn()

    def close(self) -> None:
        """Drop the coroutines. Their `finally` blocks run; what they ask for is ignored. Nothing else may be called then."""
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        branches = (*self._branches, self._body)
        self._drop_coroutines()
        if self._outcome is None or self._outcome.status is not RunStatus.SUCCEEDED:
            for branch in branches:
                branch.let_go()
        vars(self).clear()  # run and steps refer back to us: thousands of ended runs shall not wait for the collector
        self._phase = _Phase.CLOSED

    # --- asked by the run, for its steps ---------------------------------------------------------------------------

    def reference(self) -> str:
        """The place of the step that is being made. Cancelled if the run makes none any more; LimitExceeded."""
        if self._phase > _DRAINING:
            raise Cancelled(f"run {self._run_id} is being ended; no further steps")
        if self._branch is None:
            raise NotDeterministic("a Run used outside of its own workflow", "what its steps return")
        self._steps += 1
        if self._steps > self.limits.steps:
            raise too_many_steps(self.limits.steps)
        return self._branch.reference()

    def issue(self, leaf: L) -> L:
        """It begins when this turn ends, unless it was done by the run that this one is a retry of."""
        if self._copied is not None and self._take_copy(leaf, self._copied.get(leaf.ref)):
            return leaf
        self._open[leaf.ref] = leaf
        self._issued[leaf.ref] = leaf
        if self._branch is not None:
            self._branch.own(leaf)
        return leaf

    def emit(self, emit: EmitStep) -> EmitStep:
        """It is done where it is written: what the run proposes later comes behind it in the log, or not at all."""
        if self._copied is not None and self._take_copy(emit, self._copied.get(emit.ref)):
            return emit
        self._emits[emit.ref] = self._issued[emit.ref] = emit
        emit.succeed(f"{self._run_id}{emit.ref}")
        return emit

    def _take_copy(self, leaf: Leaf[Any], record: Copied | None) -> bool:
        """Settle the step by what was copied for its place, if that is what it would do."""
        try:
            match record:
                case AttemptSucceeded(handler=handler) if isinstance(leaf, CallStep) and leaf.handler.name == handler:
                    value = decoded(leaf.handler.result.decode, record, handler)
                    self._compensation.note(leaf)
                    leaf.succeed(value)
                case Emitted(run=run, step=step) if isinstance(leaf, EmitStep) and leaf.emits(record):
                    leaf.succeed(f"{run}{step}")
                case Decision() if isinstance(leaf, ApprovalStep) and may_decide(leaf.roles, record.roles):
                    leaf.succeed(decided(record.decision, record.by, record.at_ms, record.note))
                case ChildEnded(workflow=workflow) if isinstance(leaf, ChildStep) and leaf.began(record):
                    leaf.succeed(decoded(leaf.workflow.decode_result, record, workflow))
                case ChildBegan(child=child) if isinstance(leaf, ChildStep) and leaf.began(record):
                    leaf.succeed(child)
                case _:
                    return False
        except Diverged as diverged:
            self._park(leaf.ref, diverged.expected, diverged.found)
            return True
        self._past.add(leaf.ref)
        return True

    def own(self, step: S) -> S:
        """It is given up with the branch that made it."""
        if self._branch is not None:
            self._branch.own(step)
        return step

    def depth_inside(self) -> int:
        """The depth of branches that the running one makes. LimitExceeded."""
        depth = (self._branch.depth if self._branch is not None else 0) + 1
        check_depth(depth)
        return depth

    def fork(self, prefix: str, depth: int, coroutine: Coroutine[Any, Any, Any]) -> Branch[Any]:
        """A branch, ready to run. The group that it is made for gives it up."""
        branch: Branch[Any] = Branch(self, prefix, depth, coroutine)
        self._branches[branch] = None
        self.ready(branch)
        return branch

    def forbidden(self, what: str, instead: str) -> NotDeterministic:
        """What to raise. The run is parked even if the body swallows it."""
        error = NotDeterministic(what, instead)
        self._park(self._branch.ref if self._branch is not None else "", FOR_RUN_ALONE, str(error))
        return error

    # --- asked by steps --------------------------------------------------------------------------------------------

    def ready(self, branch: Branch[Any]) -> None:
        """Its turn comes: what it awaits has settled, or it is given up."""
        if not branch.queued:
            branch.queued = True
            self._ready.append(branch)

    def give_up(self, leaf: Leaf[Any]) -> None:
        """Ask for its cancellation; one that has not begun is cancelled on the spot."""
        if self._issued.pop(leaf.ref, None) is None:
            self._cancelled.append(leaf.ref)
        else:
            del self._open[leaf.ref]
            leaf.fail(Cancelled(f"{leaf.ref} was cancelled before it began"))

    # --- coroutines ------------------------------------------------------------------------------------------------

    def _go_on(self) -> Turn:
        """Let everybody know and run until all wait for the log."""
        news, ready = self.news, self._ready
        while self._parked is None:
            if news:
                watcher, step = news.popleft()
                watcher.on_settled(step)
            elif ready:
                branch = ready.popleft()
                branch.queued = False
                self._step(branch)
            elif not self._settle_phase():
                break
        return self._turn()

    def _step(self, branch: Branch[Any]) -> None:
        coroutine = branch.coroutine
        if coroutine is None:
            return
        self._branch = branch
        try:
            if branch.interrupted:
                branch.interrupted = False
                awaited = coroutine.throw(Cancelled("given up"))
            else:
                awaited = coroutine.send(None)
        except StopIteration as stop:
            self._finish(branch, stop.value, None)
        except NotDeterministic as forbidden:
            self._park(branch.ref, FOR_RUN_ALONE, message_of(forbidden))
        except BaseException as error:  # noqa: BLE001 - user code: SystemExit fails the run, not the process
            if isinstance(error, RuntimeError) and "no running event loop" in message_of(error):
                self._park(branch.ref, FOR_RUN_ALONE, "asyncio; use run.sleep(), run.gather() or a handler")
            else:
                self._finish(branch, None, error.with_traceback(None))  # it would refer to itself by our frames
        else:
            self._suspend(branch, awaited)
        finally:
            self._branch = None

    def _suspend(self, branch: Branch[Any], awaited: object) -> None:
        if not isinstance(awaited, Step):
            what = type(awaited).__qualname__
            self._park(branch.ref, FOR_RUN_ALONE, f"awaiting something that yields {what}; await steps of the run")
        elif not awaited.belongs_to(self):
            self._park(branch.ref, FOR_RUN_ALONE, f"awaiting {awaited.ref} of another run")
        else:
            branch.awaits = awaited
            awaited.watch(branch)

    def _finish(self, branch: Branch[Any], value: object, error: BaseException | None) -> None:
        branch.coroutine = None
        if branch is self._body:
            self._body_over(value, error)
            return
        self._branches.pop(branch, None)
        if error is None:
            branch.succeed(value)
            return
        for step in branch.owned:  # nobody is left to look at them
            step.cancel()
            self.unseen.pop(step, None)
        branch.fail(error)

    def _body_over(self, value: object, error: BaseException | None) -> None:
        if error is not None:
            self._stop(RunStatus.FAILED, error)
            return
        try:
            raw = self._code.encode_result(value)
            limit_bytes = self.limits.payload_bytes
            if limit_bytes is not None and len(raw) > limit_bytes:
                raise PayloadTooLarge(actual_bytes=len(raw), limit_bytes=limit_bytes)
        except NotDeterministic as forbidden:
            self._park(self._body.ref, FOR_RUN_ALONE, message_of(forbidden))
        except BaseException as refused:  # noqa: BLE001 - a model's serializers are user code
            self._stop(RunStatus.FAILED, refused)
        else:
            self._result = raw
            self._phase = _Phase.DRAINING

    def _drop_coroutines(self) -> None:
        for branch in (*self._branches, self._body):
            branch.drop()
        self._branches.clear()
        self._ready.clear()
        self.news.clear()

    # --- phases ----------------------------------------------------------------------------------------------------

    def _settle_phase(self) -> bool:
        """Move on from a phase whose work is done. True if there may be more to do now."""
        if self._phase is _BODY and self._open:
            return False
        match self._phase:
            case _Phase.BODY:
                self._stop(RunStatus.FAILED, RuntimeError(_DEADLOCK))
                return True
            case _Phase.DRAINING if not self._open and self._branches:
                self._stop(RunStatus.FAILED, RuntimeError(_DEADLOCK))
                return True
            case _Phase.DRAINING if not self._open:
                failed = next(iter(self.unseen), None)
                if failed is not None and failed.error is not None:
                    self._stop(RunStatus.FAILED, failed.error)
                    return True
                self._over(RunEnded(run=self._run_id, status=RunStatus.SUCCEEDED, result=msgspec.Raw(self._result)))
            case _Phase.STOPPING if not self._must_wait():
                self._phase = _Phase.UNDOING
                self._undo()
            case _Phase.UNDOING if not self._compensation.waits:
                self._undo()
            case _:
                pass
        return False

    def _stop(self, status: RunStatus, error: BaseException) -> None:
        """The body is over for good: cancel what is open, then undo what is finished."""
        if self._phase >= _Phase.STOPPING:
            return
        self._phase = _Phase.STOPPING
        self._status = status
        self._failure = error
        self._drop_coroutines()
        for leaf in list(self._open.values()):
            leaf.cancel()
        for ref, emit in list(self._emits.items()):
            if ref in self._issued and not emit.seen:  # neither begun nor awaited
                del self._emits[ref], self._issued[ref]

    def _must_wait(self) -> bool:
        """Whether a task that is being cancelled might still finish and want its undo, or others have one already."""
        return bool(self._open) and (
            self._compensation.wanted
            or any(isinstance(leaf, CallStep) and leaf.compensate is not None for leaf in self._open.values())
        )

    def _undo(self) -> None:
        undo = self._compensation.next(self)
        if undo is None:
            self._over(self._end())
        else:
            self._open[undo.ref] = self._issued[undo.ref] = undo

    def _end(self) -> RunEnded:
        compensation, status, error = self._compensation, self._status, self._failure
        if status is RunStatus.FAILED and compensation.undone and not compensation.failed:
            status = RunStatus.COMPENSATED
        return RunEnded(
            run=self._run_id,
            status=status,
            error="" if error is None else one_line(type(error).__name__, bytes_max=NAME_BYTES_MAX),
            message="" if error is None else message_of(error),
            failed_step=error.task if isinstance(error, TaskFailed) else "",
            undone=compensation.undone,
            undo_failed=compensation.failed,
        )

    def _over(self, ended: RunEnded) -> None:
        self._phase = _Phase.OVER
        self._outcome = ended
        self._past.update(self._open)
        self._open.clear()
        self._issued = {ref: emit for ref, emit in self._emits.items() if ref in self._issued}
        self._cancelled.clear()

    def _park(self, step: str, expected: str, found: str) -> None:
        """Take the run out of progress: the first reason counts. A run that was cancelled ends instead, without its code."""
        if self._parked is None:
            self._parked = RunParked(
                run=self._run_id,
                reason=ParkReason.NONDETERMINISTIC,
                step=step,
                expected=one_line(expected),
                found=one_line(found),
            )
        if self._cancel is not None:
            self._end_without_code(self._cancel, self._parked)

    def _end_without_code(self, cancel: Cancel, parked: RunParked) -> None:
        self._parked = None
        self._drop_coroutines()
        if self._outcome is not None:
            return
        reason = cancel.reason or "cancelled by command"
        message = one_line(f"{reason} (its code could not be run to the end, undos included: {parked.found})")
        self._over(RunEnded(run=self._run_id, status=RunStatus.CANCELLED, error="Cancelled", message=message))

    def _turn(self) -> Turn:
        if self._parked is not None:
            return Turn(parked=self._parked)
        turn = Turn()
        if self._issued:
            turn.issued = list(self._issued.values())
            self._issued.clear()
        if self._cancelled:
            turn.cancelled, self._cancelled = self._cancelled, []
        if self._outcome is not None and not self._told:
            self._told = True
            turn.ended = self._outcome
        return turn

    # --- records ---------------------------------------------------------------------------------------------------

    def _on_cancel(self, cancel: Cancel) -> None:
        self._cancel = cancel
        if self._parked is not None:
            self._end_without_code(cancel, self._parked)
        else:
            self._stop(RunStatus.CANCELLED, Cancelled(cancel.reason or "cancelled by command"))

    def _notice(self, record: Woke) -> None:
        match record:
            case AttemptSucceeded():
                self._succeeded(record)
            case AttemptFailed():
                call = self._call(record)
                if call is not None:
                    call.fail(task_failed(record))
            case TimerFired(step=step):
                if step == TIMEOUT_STEP:
                    self._stop(RunStatus.TIMED_OUT, TimeoutError("the run's timeout is over"))
                else:
                    sleeper = self._leaf(step)
                    if isinstance(sleeper, TimerStep):
                        self._settle(sleeper).succeed(None)
                    elif isinstance(sleeper, ApprovalStep):
                        self._settle(sleeper).succeed(expired(self.clock_ms))
                    elif sleeper is not None:
                        raise Diverged(step, describe(sleeper))
            case Emitted():
                self._confirm(record)
            case StepsCancelled(steps=steps):
                for step in steps:
                    leaf = self._leaf(step)
                    if leaf is not None:
                        self._settle(leaf).fail(Cancelled(f"{step} was cancelled"))
            case OutputRefused():
                self._stop(RunStatus.FAILED, output_refused(record, record.entry.removeprefix(self._run_id)))
            case Cancel():
                self._on_cancel(record)
            case Approve(step=step):
                asked = self._leaf(step)
                if isinstance(asked, ApprovalStep):
                    self._settle(asked).succeed(decided(record.decision, record.by, self.clock_ms, record.note))
                elif asked is not None:
                    raise Diverged(step, describe(asked))
            case ChildBegan():
                self._child_began(record)
            case ChildEnded():
                self._child_ended(record)
            case _:
                assert_never(record)

    def _succeeded(self, record: AttemptSucceeded) -> None:
        call = self._call(record)
        if call is None:
            return
        value = decoded(call.handler.result.decode, record, record.handler)
        self._compensation.note(call)
        call.succeed(value)

    def _child_began(self, record: ChildBegan) -> None:
        child = self._child(record)
        if child is None:
            return
        child.started = True
        if not child.awaited:
            self._settle(child).succeed(record.child)

    def _child_ended(self, record: ChildEnded) -> None:
        child = self._child(record)
        if child is None:
            return
        if record.status is RunStatus.SUCCEEDED:
            value = decoded(child.workflow.decode_result, record, record.workflow)
            self._settle(child).succeed(value)
        else:
            self._settle(child).fail(child_failed(record))

    def _child(self, record: ChildBegan | ChildEnded) -> ChildStep[Any] | None:
        leaf = self._leaf(record.step)
        if leaf is None or (isinstance(leaf, ChildStep) and leaf.began(record)):
            return leaf
        raise Diverged(record.step, describe(leaf))

    def _confirm(self, emitted: Emitted) -> None:
        emit = self._emits.get(emitted.step)
        if emit is None:
            leaf = self._leaf(emitted.step)
            if leaf is not None:
                raise Diverged(emitted.step, describe(leaf))
        elif emit.type == emitted.type:
            del self._emits[emitted.step]
            self._past.add(emitted.step)
        else:
            raise Diverged(emitted.step, describe(emit))

    def _call(self, record: AttemptSucceeded | AttemptFailed) -> CallStep[Any] | None:
        leaf = self._leaf(record.step)
        if isinstance(leaf, CallStep) and leaf.handler.name == record.handler:
            return self._settle(leaf)
        if leaf is not None:
            raise Diverged(record.step, describe(leaf))
        return None

    def _made(self, ref: str, kind: type[Leaf[Any]], expected: str) -> None:
        """Diverged, unless the code has made a step of this kind there."""
        if self._parked is not None or ref == TIMEOUT_STEP:
            return
        try:
            leaf = self._leaf(ref)
        except Diverged as diverged:
            raise Diverged(ref, diverged.found, expected=expected) from None
        if leaf is not None and not isinstance(leaf, kind):
            raise Diverged(ref, describe(leaf), expected=expected)

    def _leaf(self, ref: str) -> Leaf[Any] | None:
        """The open step behind a record; None if it is over already (a late record). None of that reference is divergence."""
        leaf = self._open.get(ref)
        if leaf is None and ref not in self._past:
            made = (*self._open.values(), *self._emits.values())
            raise Diverged(ref, found_instead(ref, made, over=self._phase is _Phase.OVER))
        return leaf

    def _settle(self, leaf: L) -> L:
        """The log has settled it."""
        del self._open[leaf.ref]
        self._past.add(leaf.ref)
        return leaf


def _is_to_be_said(step: Leaf[Any]) -> bool:
    """Whether the log has to hear (again) that an open step begins."""
    return not step.cancelling and not (isinstance(step, ChildStep) and step.started)
