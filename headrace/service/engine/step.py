"""Steps: what a run waits for. Leaves (calls, timers, approvals, emits, child runs) are settled by records of the log, branches by their coroutine,
groups by members.

A step is issued where it is written, begins at the next suspension, and settles exactly once. Made by `run.py`, settled by `interpreter.py`. Nothing here
recurses from step to step: chains of groups may be as long as a run has steps.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from headrace.service.engine.approval import Approval
from headrace.service.engine.run_state import ChildBegan
from headrace.topics.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from headrace.handlers.definition import Handler
    from headrace.service.engine.approval import ApprovalRequest
    from headrace.service.engine.interpreter import Interpreter
    from headrace.topics.command import ChildEnded
    from headrace.topics.on_conflict import OnConflict
    from headrace.topics.outcome import Emitted

T_co = TypeVar("T_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)


class Settled(Enum):
    """Where a step is in its life: PENDING, then one of the others for ever."""

    PENDING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()


_PENDING, _SUCCEEDED, _FAILED = Settled.PENDING, Settled.SUCCEEDED, Settled.FAILED  # attributes of an Enum cost 30 ns


class Watcher(Protocol):
    """Wants to know that a step has settled."""

    def on_settled(self, step: Step[Any]) -> None:
        """Called once, in log order."""
        ...


class Step(Generic[T_co]):
    """A thing the run does. It begins when made, not when awaited; awaiting it again gives the same result."""

    __slots__ = ("_cancelling", "_error", "_interpreter", "_seen", "_settled", "_value", "_watchers", "ref")

    def __init__(self, interpreter: Interpreter, ref: str) -> None:
        self._interpreter = interpreter
        self.ref = ref
        self._settled = _PENDING
        self._value: Any = None
        self._error: BaseException | None = None
        self._watchers: list[Watcher] | None = None
        self._seen = False  # awaited, or a member of a group: its failure has a reader
        self._cancelling = False

    def __await__(self) -> Generator[Step[Any], None, T_co]:
        if not self._seen:
            self._look()
        while self._settled is _PENDING:
            yield self
        error = self._error
        if error is not None:
            del self  # the traceback will hold this frame: what is here must not lead back to the error
            try:
                raise error.with_traceback(None)
            finally:
                del error
        return cast("T_co", self._value)

    def done(self) -> bool:
        """True once it has settled, however it ended."""
        return self._settled is not _PENDING

    def cancel(self) -> None:
        """Give it up. Takes effect when the log says so; a result that comes first wins."""
        doomed: list[Step[Any]] = [self]
        while doomed:
            doomed.extend(reversed(doomed.pop().give_up()))

    @property
    def state(self) -> Settled:
        """How it stands."""
        return self._settled

    @property
    def error(self) -> BaseException | None:
        """What awaiting it raises, once settled."""
        return self._error

    @property
    def value(self) -> T_co:
        """What awaiting it gives, once it has succeeded."""
        return cast("T_co", self._value)

    @property
    def seen(self) -> bool:
        """Awaited, or a member of a group."""
        return self._seen

    @property
    def cancelling(self) -> bool:
        """Given up, though the log does not say so yet."""
        return self._cancelling

    def belongs_to(self, interpreter: Interpreter) -> bool:
        """Whether it is a step of that run."""
        return self._interpreter is interpreter

    def watch(self, watcher: Watcher) -> None:
        """Tell the watcher when it settles; at once if it has."""
        if not self._seen:
            self._look()
        if self._settled is not _PENDING:
            watcher.on_settled(self)
        elif self._watchers is None:
            self._watchers = [watcher]
        else:
            self._watchers.append(watcher)

    def succeed(self, value: object) -> None:
        """Settle with a value."""
        if self._settled is _PENDING:
            self._value = value
            self._settle(_SUCCEEDED)

    def fail(self, error: BaseException) -> None:
        """Settle with an error; `Cancelled` settles as cancelled."""
        if self._settled is _PENDING:
            self._error = error
            if isinstance(error, Cancelled):
                self._settle(Settled.CANCELLED)
                return
            self._settle(_FAILED)
            if not self._seen and not self._cancelling:
                self._interpreter.unseen[self] = None

    def give_up(self) -> Sequence[Step[Any]]:
        """What `cancel` does to one step. The steps that are given up with it."""
        if self._settled is not _PENDING or self._cancelling:
            return ()
        self._cancelling = True
        return self._give_up()

    def _give_up(self) -> Sequence[Step[Any]]:
        raise NotImplementedError

    def _look(self) -> None:
        self._seen = True
        if self._settled is _FAILED:
            self._interpreter.unseen.pop(self, None)

    def _settle(self, settled: Settled) -> None:
        self._settled = settled
        if self._watchers:
            news = self._interpreter.news
            for watcher in self._watchers:
                news.append((watcher, self))
            self._watchers = None


class Leaf(Step[T_co]):
    """A step that the log settles."""

    __slots__ = ()

    def _give_up(self) -> Sequence[Step[Any]]:
        self._interpreter.give_up(self)
        return ()


class CallStep(Leaf[T_co]):
    """A task. `arguments` is a JSON array, encoded when issued; each attempt decodes its own copy. `undoes`: this is a compensation, of that task."""

    __slots__ = ("arguments", "compensate", "handler", "issued_at_ms", "undoes")

    def __init__(
        self,
        interpreter: Interpreter,
        ref: str,
        handler: Handler[*tuple[Any, ...], Any],
        arguments: bytes,
        issued_at_ms: int,
        compensate: Handler[*tuple[Any, ...], Any] | None = None,
        undoes: str | None = None,
    ) -> None:
        super().__init__(interpreter, ref)
        self.handler = handler
        self.arguments = arguments
        self.issued_at_ms = issued_at_ms
        self.compensate = compensate
        self.undoes = undoes


class TimerStep(Leaf[None]):
    """Sleeps until `due_at_ms` by the run's clock."""

    __slots__ = ("due_at_ms", "issued_at_ms")

    def __init__(self, interpreter: Interpreter, ref: str, due_at_ms: int, issued_at_ms: int) -> None:
        super().__init__(interpreter, ref)
        self.due_at_ms = due_at_ms
        self.issued_at_ms = issued_at_ms


class ApprovalStep(Leaf[Approval]):
    """Asks somebody with one of the roles (none: anybody), until `due_at_ms` (None: for ever)."""

    __slots__ = ("due_at_ms", "issued_at_ms", "roles", "title")

    def __init__(
        self,
        interpreter: Interpreter,
        ref: str,
        title: str,
        roles: tuple[str, ...],
        due_at_ms: int | None,
        issued_at_ms: int,
    ) -> None:
        super().__init__(interpreter, ref)
        self.title = title
        self.roles = roles
        self.due_at_ms = due_at_ms
        self.issued_at_ms = issued_at_ms

    def asks(self, request: ApprovalRequest) -> bool:
        """Whether it would ask this very thing."""
        return (self.title, self.roles, self.due_at_ms) == (request.title, request.roles, request.due_at_ms)


class EmitStep(Leaf[str]):
    """An event on its way into the outbox. Its result is the CloudEvents id."""

    __slots__ = ("data", "key", "subject", "topic", "type")

    def __init__(
        self,
        interpreter: Interpreter,
        ref: str,
        topic: str,
        type: str,
        data: bytes,
        key: str | None,
        subject: str | None,
    ) -> None:
        super().__init__(interpreter, ref)
        self.topic = topic
        self.type = type
        self.data = data
        self.key = key
        self.subject = subject

    def emits(self, emitted: Emitted) -> bool:
        """Whether it would emit this very event."""
        mine = (self.topic, self.type, self.key, self.subject, self.data)
        return mine == (emitted.topic, emitted.type, emitted.key, emitted.subject, bytes(emitted.data))


class ChildCode(Protocol[A_contra, T_co]):
    """What a parent needs of the definition of a child's workflow."""

    @property
    def id(self) -> tuple[str, str, str]:
        """Namespace, name, version."""
        ...

    @property
    def name(self) -> str:
        """The second of these."""
        ...

    @property
    def on_conflict(self) -> OnConflict:
        """What becomes of a start whose key is held."""
        ...

    @property
    def timeout_ms(self) -> int | None:
        """Of a whole run; None: the default."""
        ...

    def encode_input(self, value: A_contra, *, limit_bytes: int | None = None) -> bytes:
        """The input as JSON. Raises PayloadError."""
        ...

    def decode_result(self, raw: bytes) -> T_co:
        """The result again. Raises PayloadError."""
        ...

    def key_of(self, raw: bytes) -> str | None:
        """What `key=` says of an input; None: it has none."""
        ...


class ChildStep(Leaf[T_co]):
    """A child run. `input` is JSON. If it is `awaited` its result is the step's, else its id. `started`: the log has its start."""

    __slots__ = ("awaited", "input", "key", "started", "workflow")

    def __init__(
        self,
        interpreter: Interpreter,
        ref: str,
        workflow: ChildCode[Any, Any],
        input: bytes,
        key: str | None,
        *,
        awaited: bool,
    ) -> None:
        super().__init__(interpreter, ref)
        self.workflow = workflow
        self.input = input
        self.key = key
        self.awaited = awaited
        self.started = False

    def began(self, record: ChildBegan | ChildEnded) -> bool:
        """Whether it would begin the very child that the record is about."""
        awaited = record.awaited if isinstance(record, ChildBegan) else True
        return (self.workflow.name, self.awaited) == (record.workflow, awaited)
