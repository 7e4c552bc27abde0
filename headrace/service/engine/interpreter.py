"""The interpreter: drives one run's coroutine by the records of the log, without an event loop.

Same workflow, same start, same records: same steps, anywhere. A live interpreter is a cache of folded records; dropping it at any moment changes nothing.
Called by `service/wake.py` (live) and rebuilt by `replay`. What it returns, a `Turn`, is what the run asks for now; nothing here acts.
"""

from __future__ import annotations

import inspect
from collections import deque
from enum import Enum, auto
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, assert_never

import msgspec

from headrace.handlers.definition import Handler
from headrace.handlers.payload import PayloadError, payload_type
from headrace.service.engine.run import Run
from headrace.service.engine.state import Woke
from headrace.service.engine.step import (
    Branch,
    CallStep,
    EmitStep,
    Gather,
    Leaf,
    Map,
    Race,
    Settled,
    Step,
    TimerStep,
)
from headrace.topics.command import Cancel
from headrace.topics.errors import (
    Cancelled,
    Cause,
    HeadraceError,
    NotDeterministic,
    TaskFailed,
)
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
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from headrace.topics.event import Event

L = TypeVar("L", bound=Leaf[Any])
S = TypeVar("S", bound=Step[Any])

TIMEOUT_STEP = "/timeout"
"""The reference of the run's own timer."""

FAN_OUT_MAX = 10_000
STEPS_MAX = 50_000
_MESSAGE_MAX = 2_000
_THROWS_MAX = 100  # a body that swallows Cancelled this often is dropped


class LimitExceeded(HeadraceError):
    """A run asked for more than a limit allows; it fails."""

    code = "HR4010"


class Code(Protocol):
    """What the interpreter needs of a workflow definition."""

    @property
    def name(self) -> str:
        """The workflow's name."""
        ...

    def begin(self, run: Run, raw: bytes) -> Coroutine[Any, Any, Any]:
        """Decode the input and make the coroutine. Raises PayloadError."""
        ...

    def encode_result(self, value: object) -> bytes:
        """The result as JSON. Raises PayloadError."""
        ...


class Turn(msgspec.Struct):
    """What a run asks for after some records: steps that begin, steps to cancel, its end, or that it must be parked."""

    issued: list[Leaf[Any]] = []
    cancelled: list[str] = []
    ended: RunEnded | None = None
    parked: RunParked | None = None


class _Phase(Enum):
    BODY = auto()  # the workflow's own code runs
    DRAINING = auto()  # the body has returned; open steps finish
    STOPPING = auto()  # the body is over for good; open steps are being cancelled
    UNDOING = auto()  # compensations, one after the other
    OVER = auto()


class _Diverged(Exception):  # noqa: N818 - not an error of anybody's: control flow of this file
    def __init__(self, step: str, expected: str, found: str) -> None:
        super().__init__(step)
        self.step = step
        self.expected = expected
        self.found = found


class Interpreter:
    """One run, alive. `begin` once, then `feed` each record in log order."""

    def __init__(  # noqa: PLR0913 - the run's facts, made in one place
        self,
        code: Code,
        *,
        run_id: str,
        key: str,
        event: Event[Any] | None,
        raw_input: bytes,
        began_at_ms: int,
        payload_bytes_max: int | None = None,
    ) -> None:
        self._code = code
        self._payload_bytes_max = payload_bytes_max
        self._run_id = run_id
        self._key = key
        self._input = raw_input
        self._run = Run(self, run_id, key, event)
        self.clock_ms = began_at_ms
        self._phase = _Phase.BODY
        self._body: Branch[Any] = Branch(self, "")
        self._branch: Branch[Any] = self._body
        self._ready: deque[Branch[Any]] = deque()
        self._interrupted: set[Branch[Any]] = set()
        self._open: dict[str, Leaf[Any]] = {}
        self._branches: dict[Branch[Any], None] = {}  # open ones beside the body
        self._issued: list[Leaf[Any]] = []
        self._cancelled: list[str] = []
        self._steps = 0
        self._past: set[str] = set()  # references that are settled: their late records are ignored
        self._outcome_value = b""
        self._finished: list[CallStep[Any]] = []  # tasks with an undo, in order of completion
        self._undo: CallStep[Any] | None = None
        self._undone = 0
        self._undo_failed = 0
        self._failure: BaseException | None = None
        self._status = RunStatus.FAILED
        self._outcome: RunEnded | None = None
        self._parked: RunParked | None = None

    # --- driven by the owner ---------------------------------------------------------------------------------------

    def begin(self) -> Turn:
        """Run the body up to its first suspension."""
        try:
            self._body.coroutine = self._code.begin(self._run, self._input)
        except PayloadError as error:
            self._over(RunEnded(run=self._run_id, status=RunStatus.FAILED, error="PayloadError", message=str(error)))
            return self._turn()
        self._ready.append(self._body)
        return self._go_on()

    def feed(self, record: Woke, at_ms: int) -> Turn:
        """Notice one accepted record. A record that does not fit the code parks the run."""
        if self._parked is not None:
            return Turn()
        self.clock_ms = max(self.clock_ms, at_ms)
        try:
            self._notice(record)
        except _Diverged as diverged:
            self._park(diverged.step, diverged.expected, diverged.found)
            return self._turn()
        return self._go_on()

    def replay(self, history: Iterable[tuple[Woke, int]]) -> Turn:
        """Begin and feed a whole history; then everything that is open is asked for again."""
        turn = self.begin()
        for record, at_ms in history:
            if self._parked is not None:
                break
            turn = self.feed(record, at_ms)
        if self._parked is not None:
            return Turn(parked=self._parked)
        cancelled = [ref for ref, step in self._open.items() if step.cancelling]
        issued = [step for step in self._open.values() if not step.cancelling]
        return Turn(issued=issued, cancelled=cancelled, ended=self._outcome)

    def close(self) -> None:
        """Drop the coroutines. Their `finally` blocks run; what they ask for is ignored."""
        self._phase = _Phase.OVER
        for branch in (*self._branches, self._body):
            if branch.coroutine is not None:
                _drop(branch.coroutine)
        self._ready.clear()

    # --- asked by the run ------------------------------------------------------------------------------------------

    def call(self, handler: Any, args: Sequence[Any], compensate: Any) -> CallStep[Any]:
        """Issue a task."""
        if not isinstance(handler, Handler):
            self._forbid(f"run.call({_name(handler)})", "a function decorated with @handler")
        if compensate is not None and not isinstance(compensate, Handler):
            self._forbid(f"compensate={_name(compensate)}", "a function decorated with @handler")
        ref = f"{self._number()}/{handler.name}"
        arguments = handler.arguments.encode(tuple(args), limit_bytes=self._payload_bytes_max)
        return self._issue(CallStep(self, ref, handler, arguments, self.clock_ms, compensate))

    def sleep(self, due_at_ms: int) -> TimerStep:
        """Issue a timer."""
        return self._issue(TimerStep(self, f"{self._number()}/sleep", due_at_ms))

    def emit(self, type_: str, data: object, *, topic: str, key: str | None, subject: str | None) -> EmitStep:
        """Issue an event."""
        for name, value in (("type", type_), ("topic", topic)):
            if not isinstance(value, str) or not value:  # pyright: ignore[reportUnnecessaryIsInstance]
                message = f"emit needs a {name}: a text that is not empty"
                raise TypeError(message)
        raw = payload_type(type(data)).encode(data, limit_bytes=self._payload_bytes_max)
        key = (self._key or None) if key is None else key
        return self._issue(EmitStep(self, f"{self._number()}/emit", topic, type_, raw, key, subject))

    def gather(self, members: Sequence[Awaitable[Any]]) -> Gather[Any]:
        """Several as one."""
        group: Gather[Any] = Gather(self, self._number())
        group.join(self._members(group.ref, members))
        return self._owned(group)

    def race(self, members: Sequence[Awaitable[Any]]) -> Race[Any]:
        """The first of several."""
        if not members:
            message = "race needs at least one step"
            raise ValueError(message)
        group: Race[Any] = Race(self, self._number())
        group.join(self._members(group.ref, members))
        return self._owned(group)

    def map(self, each: Callable[[Any], Awaitable[Any]], items: Sequence[Any], concurrency: int) -> Map[Any]:
        """One branch an item."""
        if concurrency < 1:
            message = "map needs a concurrency of at least 1"
            raise ValueError(message)
        items = list(items)
        self._check_fan_out(len(items))
        group: Map[Any] = Map(self, self._number())
        group.begin(each, items, concurrency)
        return self._owned(group)

    def chance(self) -> int:
        """128 bits from the run's id and the step's number."""
        text = f"{self._run_id}{self._number()}"
        return int.from_bytes(sha256(text.encode()).digest()[:16], "big")

    # --- asked by steps --------------------------------------------------------------------------------------------

    def ready(self, branch: Branch[Any]) -> None:
        """The step it awaits has settled."""
        self._ready.append(branch)

    def interrupt(self, branch: Branch[Any]) -> None:
        """Throw `Cancelled` into it when its turn comes."""
        if branch not in self._interrupted:
            self._interrupted.add(branch)
            self._ready.append(branch)

    def give_up(self, leaf: Leaf[Any]) -> None:
        """Ask for its cancellation; one that has not begun is cancelled on the spot."""
        for index, issued in enumerate(self._issued):
            if issued is leaf:
                del self._issued[index]
                del self._open[leaf.ref]
                self._past.add(leaf.ref)
                leaf.fail(Cancelled(f"{leaf.ref} was cancelled before it began"))
                return
        self._cancelled.append(leaf.ref)

    def item(self, ref: str, index: int, each: Callable[[Any], Awaitable[Any]], item: Any) -> Step[Any]:
        """A branch for one item of a map. `each` is called within it, so that its steps are numbered there."""

        async def one() -> Any:
            return await each(item)

        return self._fork(f"{ref}/{index}", one())

    # --- inside ----------------------------------------------------------------------------------------------------

    def _number(self) -> str:
        if self._phase is not _Phase.BODY and self._phase is not _Phase.DRAINING:
            message = f"run {self._run_id} is being ended; no further steps"
            raise Cancelled(message)
        self._steps += 1
        if self._steps > STEPS_MAX:
            message = f"The run has made {STEPS_MAX} steps (limits.tasks_per_run)."
            raise LimitExceeded(message, code="HR4011")
        branch = self._branch
        return f"{branch.prefix}/{branch.number()}"

    def _issue(self, leaf: L) -> L:
        self._open[leaf.ref] = leaf
        self._issued.append(leaf)
        self._branch.own(leaf)
        return leaf

    def _owned(self, group: S) -> S:
        self._branch.own(group)
        return group

    def _check_fan_out(self, count: int) -> None:
        if count > FAN_OUT_MAX:
            message = f"{count} branches at once are more than {FAN_OUT_MAX} (limits.fan_out)."
            raise LimitExceeded(message, code="HR4012")

    def _members(self, ref: str, members: Sequence[Awaitable[Any]]) -> list[Step[Any]]:
        self._check_fan_out(len(members))
        steps: list[Step[Any]] = []
        for index, member in enumerate(members):
            if isinstance(member, Step):
                steps.append(member)
            elif inspect.iscoroutine(member):
                steps.append(self._fork(f"{ref}/{index}", member))
            else:
                self._forbid(f"waiting for {_name(member)}", "steps of this run, or coroutines that await them")
        return steps

    def _fork(self, prefix: str, coroutine: Coroutine[Any, Any, Any]) -> Branch[Any]:
        branch: Branch[Any] = Branch(self, prefix, coroutine)
        self._branches[branch] = None
        self._branch.own(branch)
        self._ready.append(branch)
        return branch

    def _forbid(self, what: str, instead: str) -> None:
        raise NotDeterministic(what, instead)

    def _go_on(self) -> Turn:
        while True:
            while self._ready and self._parked is None:
                self._step(self._ready.popleft())
            if self._parked is not None or not self._settle_phase():
                return self._turn()

    def _step(self, branch: Branch[Any]) -> None:
        coroutine = branch.coroutine
        if coroutine is None or branch.state is not Settled.PENDING:
            return
        self._branch = branch
        try:
            if branch in self._interrupted:
                self._interrupted.discard(branch)
                awaited = coroutine.throw(Cancelled("given up"))
            else:
                awaited = coroutine.send(None)
        except StopIteration as stop:
            self._finish(branch, stop.value, None)
        except NotDeterministic as forbidden:
            self._park(branch.ref, "a workflow that only awaits its run", _forbidden(forbidden))
        except RuntimeError as error:
            if "no running event loop" in str(error):
                self._park(branch.ref, "a workflow that only awaits its run", "asyncio; use run.sleep, run.gather, ...")
            else:
                self._finish(branch, None, error)
        except BaseException as error:  # noqa: BLE001 - user code: SystemExit fails the run, not the process
            self._finish(branch, None, error)
        else:
            if isinstance(awaited, Step):
                if awaited.state is Settled.PENDING:
                    awaited.watch(branch)
                else:
                    self._ready.append(branch)
            else:
                self._park(branch.ref, "a workflow that only awaits its run", f"awaiting {_name(awaited)}")
        finally:
            self._branch = self._body

    def _finish(self, branch: Branch[Any], value: object, error: BaseException | None) -> None:
        branch.coroutine = None
        self._branches.pop(branch, None)
        if branch is self._body:
            self._body_over(value, error)
        elif error is None:
            branch.succeed(value)
        else:
            for step in branch.owned:
                step.cancel()
            branch.fail(error)

    def _body_over(self, value: object, error: BaseException | None) -> None:
        if self._phase is not _Phase.BODY:
            return
        if error is not None:
            self._stop(RunStatus.FAILED, error)
            return
        try:
            raw = self._code.encode_result(value)
        except PayloadError as refused:
            self._stop(RunStatus.FAILED, refused)
            return
        self._outcome_value = raw
        self._body.succeed(None)
        self._phase = _Phase.DRAINING

    def _stop(self, status: RunStatus, error: BaseException) -> None:
        """The body is over for good: cancel what is open, then undo what is finished."""
        if self._phase in {_Phase.STOPPING, _Phase.UNDOING, _Phase.OVER}:
            return
        self._phase = _Phase.STOPPING
        self._status = status
        self._failure = error
        for branch in (*self._branches, self._body):
            if branch.coroutine is not None:
                _drop(branch.coroutine)
                branch.coroutine = None
        self._branches.clear()
        self._ready.clear()
        for leaf in list(self._open.values()):
            leaf.cancel()

    def _settle_phase(self) -> bool:
        """Move on from a phase whose work is done. True if that made something ready."""
        match self._phase:
            case _Phase.DRAINING if not self._open and not self._branches:
                failed = next((step for step in self._body.owned if step.unseen_failure), None)
                if failed is not None and failed.error is not None:
                    self._stop(RunStatus.FAILED, failed.error)
                    return True
                self._over(
                    RunEnded(
                        run=self._run_id, status=RunStatus.SUCCEEDED, result=msgspec.Raw(self._outcome_value)
                    )
                )
            case _Phase.STOPPING if not self._must_wait():
                self._phase = _Phase.UNDOING
                return self._undo_next()
            case _Phase.UNDOING if self._undo is not None and self._undo.done():
                if self._undo.state is Settled.SUCCEEDED:
                    self._undone += 1
                else:
                    self._undo_failed += 1
                return self._undo_next()
            case _:
                pass
        return False

    def _must_wait(self) -> bool:
        """Whether a task that is being cancelled might still finish and want its undo, or others have one already."""
        if not self._open:
            return False
        return bool(self._finished) or any(isinstance(s, CallStep) and s.compensate for s in self._open.values())

    def _undo_next(self) -> bool:
        if not self._finished:
            self._over(self._end())
            return False
        done = self._finished.pop()
        ref = f"{done.ref}/undo/{done.compensate.name}"
        self._undo = CallStep(self, ref, done.compensate, done.arguments, self.clock_ms, undoes=done.ref)
        self._open[ref] = self._undo
        self._issued.append(self._undo)
        return False

    def _end(self) -> RunEnded:
        status = self._status
        if status is RunStatus.FAILED and self._undone and not self._undo_failed:
            status = RunStatus.COMPENSATED
        error = self._failure
        return RunEnded(
            run=self._run_id,
            status=status,
            error=type(error).__name__ if error is not None else "",
            message=_message(error),
            failed_step=error.task if isinstance(error, TaskFailed) else "",
            undone=self._undone,
            undo_failed=self._undo_failed,
        )

    def _over(self, ended: RunEnded) -> None:
        self._phase = _Phase.OVER
        self._outcome = ended
        self._past.update(self._open)
        self._open.clear()
        self._issued.clear()
        self._cancelled.clear()

    def _park(self, step: str, expected: str, found: str) -> None:
        self._parked = RunParked(
            run=self._run_id, reason=ParkReason.NONDETERMINISTIC, step=step, expected=expected, found=found
        )

    def _turn(self) -> Turn:
        if self._parked is not None:
            return Turn(parked=self._parked)
        turn = Turn(issued=self._issued, cancelled=self._cancelled, ended=self._outcome)
        self._issued, self._cancelled = [], []
        return turn

    # --- records ---------------------------------------------------------------------------------------------------

    def _notice(self, record: Woke) -> None:
        match record:
            case AttemptSucceeded():
                self._succeeded(record)
            case AttemptFailed():
                call = self._leaf(record.step, CallStep, f"{record.handler} called", record.handler)
                if call is not None:
                    call.fail(_task_failed(record))
            case TimerFired(step=step):
                if step == TIMEOUT_STEP:
                    self._stop(RunStatus.TIMED_OUT, TimeoutError("the run's timeout is over"))
                else:
                    timer = self._leaf(step, TimerStep, "a timer that fired")
                    if timer is not None:
                        timer.succeed(None)
            case Emitted():
                emit = self._leaf(record.step, EmitStep, f"{record.type} emitted to {record.topic}", record.type)
                if emit is not None:
                    emit.succeed(f"{self._run_id}{record.step}")
            case StepsCancelled(steps=steps):
                for ref in steps:
                    leaf = self._leaf(ref, Leaf, "a step that was cancelled")
                    if leaf is not None:
                        leaf.fail(Cancelled(f"{ref} was cancelled"))
            case OutputRefused(entry=entry, message=message, code=code):
                step = entry.removeprefix(self._run_id)
                self._stop(RunStatus.FAILED, HeadraceError(f"The output of {step} was refused: {message}", code=code))
            case Cancel(reason=reason):
                self._stop(RunStatus.CANCELLED, Cancelled(reason or "cancelled by command"))
            case _:
                assert_never(record)

    def _succeeded(self, record: AttemptSucceeded) -> None:
        call = self._leaf(record.step, CallStep, f"{record.handler} called", record.handler)
        if call is None:
            return
        if call.compensate is not None:
            self._finished.append(call)
        try:
            call.succeed(call.handler.result.decode(bytes(record.result)))
        except PayloadError as error:
            raise _Diverged(record.step, f"a result of {record.handler} that fits its annotation", str(error)) from error

    def _leaf(self, ref: str, kind: type[L], expected: str, what: str = "") -> L | None:
        """The open step behind a record; None if it is over already (a late record). Anything else is divergence."""
        leaf = self._open.get(ref)
        if leaf is None:
            if ref in self._past:
                return None
            raise _Diverged(ref, f"{expected} at {ref}", self._found_near(ref))
        found = leaf.handler.name if isinstance(leaf, CallStep) else leaf.type if isinstance(leaf, EmitStep) else ""
        if not isinstance(leaf, kind) or (what and found != what):
            raise _Diverged(ref, f"{expected} at {ref}", _describe(leaf))
        del self._open[ref]
        self._past.add(ref)
        return leaf

    def _found_near(self, ref: str) -> str:
        position = ref.rpartition("/")[0]
        for other in self._open.values():
            if other.ref.rpartition("/")[0] == position:
                return _describe(other)
        if self._phase is _Phase.OVER:
            return "the workflow has ended"
        waiting = ", ".join(list(self._open)[:3])
        return f"no such step; the workflow waits for {waiting or 'nothing'}"


def _describe(leaf: Leaf[Any]) -> str:
    match leaf:
        case CallStep(handler=handler):
            return f"{handler.name} called at {leaf.ref}"
        case TimerStep():
            return f"a timer at {leaf.ref}"
        case EmitStep(type=type_, topic=topic):
            return f"{type_} emitted to {topic} at {leaf.ref}"
        case _:
            return f"a step at {leaf.ref}"


def _task_failed(record: AttemptFailed) -> TaskFailed:
    return TaskFailed(
        task=record.step,
        handler=record.handler,
        cause=Cause(record.cause),
        error=record.error,
        message=record.message,
        attempts=record.number,
    )


def _drop(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Unwind a coroutine with `Cancelled`; what it asks for meanwhile is ignored."""
    for _ in range(_THROWS_MAX):
        try:
            coroutine.throw(Cancelled("the run is ending"))
        except BaseException:  # noqa: BLE001 - user code on its way out
            return
    try:
        coroutine.close()
    except RuntimeError:
        return


def _message(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(error)
    return text if len(text) <= _MESSAGE_MAX else text[:_MESSAGE_MAX] + "..."


def _forbidden(error: NotDeterministic) -> str:
    return str(error)


def _name(value: object) -> str:
    return getattr(value, "__qualname__", None) or type(value).__qualname__
