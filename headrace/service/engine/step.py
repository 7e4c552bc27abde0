"""Steps: what a run waits for. Leaves (calls, timers, emits) are settled by records of the log, branches by their coroutine, groups by their members.

A step is issued where it is written, begins at the next suspension, and settles exactly once. Only `interpreter.py` makes and settles them.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from headrace.topics.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence

    from headrace.service.engine.interpreter import Interpreter

T_co = TypeVar("T_co", covariant=True)


class Settled(Enum):
    """Where a step is in its life: PENDING, then one of the others for ever."""

    PENDING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()


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
        self._settled = Settled.PENDING
        self._value: Any = None
        self._error: BaseException | None = None
        self._watchers: list[Watcher] = []
        self._seen = False  # awaited, or a member of a group: its failure has a reader
        self._cancelling = False

    def __await__(self) -> Generator[Step[Any], None, T_co]:
        self._seen = True
        while self._settled is Settled.PENDING:
            yield self
        if self._error is not None:
            raise self._error
        return cast("T_co", self._value)

    def done(self) -> bool:
        """True once it has settled, however it ended."""
        return self._settled is not Settled.PENDING

    def cancel(self) -> None:
        """Give it up. Takes effect when the log says so; a result that comes first wins."""
        if self._settled is Settled.PENDING and not self._cancelling:
            self._cancelling = True
            self._give_up()

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
    def cancelling(self) -> bool:
        """Given up, though the log does not say so yet."""
        return self._cancelling

    @property
    def unseen_failure(self) -> bool:
        """Failed, and nobody looked."""
        return self._settled is Settled.FAILED and not self._seen

    def watch(self, watcher: Watcher) -> None:
        """Tell the watcher when it settles; at once if it has."""
        self._seen = True
        if self._settled is Settled.PENDING:
            self._watchers.append(watcher)
        else:
            watcher.on_settled(self)

    def succeed(self, value: object) -> None:
        """Settle with a value."""
        if self._settled is Settled.PENDING:
            self._value = value
            self._settle(Settled.SUCCEEDED)

    def fail(self, error: BaseException) -> None:
        """Settle with an error; `Cancelled` settles as cancelled."""
        if self._settled is Settled.PENDING:
            self._error = error
            self._settle(Settled.CANCELLED if isinstance(error, Cancelled) else Settled.FAILED)

    def _settle(self, settled: Settled) -> None:
        self._settled = settled
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.on_settled(self)

    def _give_up(self) -> None:
        raise AssertionError


class Leaf(Step[T_co]):
    """A step that the log settles."""

    __slots__ = ()

    def _give_up(self) -> None:
        self._interpreter.give_up(self)


class CallStep(Leaf[T_co]):
    """A task. `arguments` is a JSON array, encoded when issued; each attempt decodes its own copy."""

    __slots__ = ("arguments", "compensate", "handler", "issued_at_ms", "undoes")

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        interpreter: Interpreter,
        ref: str,
        handler: Any,
        arguments: bytes,
        issued_at_ms: int,
        compensate: Any = None,
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

    __slots__ = ("due_at_ms",)

    def __init__(self, interpreter: Interpreter, ref: str, due_at_ms: int) -> None:
        super().__init__(interpreter, ref)
        self.due_at_ms = due_at_ms


class EmitStep(Leaf[str]):
    """An event on its way into the outbox. Its result is the CloudEvents id."""

    __slots__ = ("data", "key", "subject", "topic", "type")

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        interpreter: Interpreter,
        ref: str,
        topic: str,
        type: str,  # noqa: A002 - CloudEvents' word
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


class Branch(Step[T_co]):
    """A coroutine of the run: the body itself, or one given to a group. Numbers its own steps, so that references do not depend on interleaving."""

    __slots__ = ("_count", "coroutine", "owned", "prefix")

    def __init__(
        self, interpreter: Interpreter, prefix: str, coroutine: Coroutine[Any, Any, T_co] | None = None
    ) -> None:
        super().__init__(interpreter, prefix or "/")
        self.prefix = prefix
        self.coroutine = coroutine
        self.owned: list[Step[Any]] = []  # issued here and perhaps still open
        self._count = 0

    def number(self) -> int:
        """The next step's number, from 1."""
        self._count += 1
        return self._count

    def own(self, step: Step[Any]) -> None:
        """Note a step issued here; forget settled ones now and then."""
        self.owned.append(step)
        if len(self.owned) & 63 == 0:
            self.owned = [owned for owned in self.owned if owned.state is Settled.PENDING]

    def on_settled(self, step: Step[Any]) -> None:
        """The step that the coroutine awaits has settled: go on."""
        self._interpreter.ready(self)

    def _give_up(self) -> None:
        for step in self.owned:
            step.cancel()
        self._interpreter.interrupt(self)


class Group(Step[T_co]):
    """Several steps as one. Failure of a group of all: the first failure in log order, the others given up."""

    __slots__ = ("members",)

    def __init__(self, interpreter: Interpreter, ref: str) -> None:
        super().__init__(interpreter, ref)
        self.members: list[Step[Any]] = []

    def _give_up(self) -> None:
        for member in self.members:
            member.cancel()

    def _fail_all(self, error: BaseException) -> None:
        for member in self.members:
            member.cancel()
        self.fail(error)


class Gather(Group[tuple[T_co, ...]]):
    """All of them, results in argument order."""

    __slots__ = ("_left",)

    def join(self, members: Sequence[Step[Any]]) -> None:
        """Wait for these."""
        self.members = list(members)
        self._left = len(self.members)
        if not self.members:
            self.succeed(())
        for member in self.members:
            member.watch(self)

    def on_settled(self, step: Step[Any]) -> None:
        """One of them has settled."""
        self._left -= 1
        if step.error is not None:
            self._fail_all(step.error)
        elif self._left == 0 and self._settled is Settled.PENDING:
            self.succeed(tuple(member.value for member in self.members))


class Race(Group[T_co]):
    """The first success; the others are given up. All failed: the last error."""

    __slots__ = ("_left",)

    def join(self, members: Sequence[Step[Any]]) -> None:
        """Wait for one of these (at least one)."""
        self.members = list(members)
        self._left = len(self.members)
        for member in self.members:
            member.watch(self)

    def on_settled(self, step: Step[Any]) -> None:
        """One of them has settled."""
        self._left -= 1
        if step.error is None:
            if self._settled is Settled.PENDING:
                self.succeed(step.value)
                for member in self.members:
                    member.cancel()
        elif self._left == 0:
            self.fail(step.error)


class Map(Group[list[T_co]]):
    """One branch an item, at most `concurrency` at once, results in item order."""

    __slots__ = ("_concurrency", "_each", "_items", "_left", "_open", "_results")

    def begin(self, each: Callable[[Any], Awaitable[Any]], items: Sequence[Any], concurrency: int) -> None:
        """Start the first ones."""
        self._each = each
        self._items = items
        self._concurrency = concurrency
        self._left = len(items)
        self._open = 0
        self._results: list[Step[Any]] = []
        if not items:
            self.succeed([])
        self._fill()

    def on_settled(self, step: Step[Any]) -> None:
        """One of them has settled."""
        self._left -= 1
        self._open -= 1
        if step.error is not None:
            self._fail_all(step.error)
        elif self._left == 0 and self._settled is Settled.PENDING:
            self.succeed([member.value for member in self.members])
        else:
            self._fill()

    def _fill(self) -> None:
        while (
            self._settled is Settled.PENDING
            and not self._cancelling
            and self._open < self._concurrency
            and len(self.members) < len(self._items)
        ):
            index = len(self.members)
            member = self._interpreter.item(self.ref, index, self._each, self._items[index])
            self.members.append(member)
            self._open += 1
            member.watch(self)
