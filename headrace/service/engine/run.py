"""`Run`: the only thing a workflow awaits. What a workflow's author sees of the engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

from headrace.handlers.duration import milliseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headrace.handlers.definition import Handler
    from headrace.handlers.duration import Duration
    from headrace.service.engine.interpreter import Interpreter
    from headrace.service.engine.step import Step
    from headrace.topics.event import Event

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
A = TypeVar("A")
Ts = TypeVarTuple("Ts")


class Run:
    """One execution of a workflow. gather, race and map take steps, and coroutines of helpers that await this run."""

    __slots__ = ("_interpreter", "event", "id", "key")

    id: str
    key: str
    event: Event[Any] | None

    def __init__(self, interpreter: Interpreter, run_id: str, key: str, event: Event[Any] | None) -> None:
        self._interpreter = interpreter
        self.id = run_id
        self.key = key
        self.event = event

    def call(
        self, handler: Handler[*Ts, T], *args: *Ts, compensate: Handler[*Ts, Any] | None = None
    ) -> Step[T]:
        """Call a task. Arguments are encoded now. If the run fails after this task has finished, `compensate` is called with the same arguments."""
        return self._interpreter.call(handler, args, compensate)

    @overload
    def gather(self, step1: Awaitable[T1], /) -> Step[tuple[T1]]: ...
    @overload
    def gather(self, step1: Awaitable[T1], step2: Awaitable[T2], /) -> Step[tuple[T1, T2]]: ...
    @overload
    def gather(
        self, step1: Awaitable[T1], step2: Awaitable[T2], step3: Awaitable[T3], /
    ) -> Step[tuple[T1, T2, T3]]: ...
    @overload
    def gather(
        self, step1: Awaitable[T1], step2: Awaitable[T2], step3: Awaitable[T3], step4: Awaitable[T4], /
    ) -> Step[tuple[T1, T2, T3, T4]]: ...
    @overload
    def gather(
        self,
        step1: Awaitable[T1],
        step2: Awaitable[T2],
        step3: Awaitable[T3],
        step4: Awaitable[T4],
        step5: Awaitable[T5],
        /,
    ) -> Step[tuple[T1, T2, T3, T4, T5]]: ...
    @overload
    def gather(
        self,
        step1: Awaitable[T1],
        step2: Awaitable[T2],
        step3: Awaitable[T3],
        step4: Awaitable[T4],
        step5: Awaitable[T5],
        step6: Awaitable[T6],
        /,
    ) -> Step[tuple[T1, T2, T3, T4, T5, T6]]: ...
    @overload
    def gather(self, *steps: Awaitable[T]) -> Step[tuple[T, ...]]: ...
    def gather(self, *steps: Awaitable[Any]) -> Step[Any]:
        """All of them, results in argument order. The first failure, in log order, gives the others up and is raised as itself."""
        return self._interpreter.gather(steps)

    @overload
    def race(self, step1: Awaitable[T1], step2: Awaitable[T2], /) -> Step[T1 | T2]: ...
    @overload
    def race(self, *steps: Awaitable[T]) -> Step[T]: ...
    def race(self, *steps: Awaitable[Any]) -> Step[Any]:
        """The first success; the others are given up. If all fail, the last error."""
        return self._interpreter.race(steps)

    def map(self, each: Callable[[A], Awaitable[T]], items: Sequence[A], *, concurrency: int = 10) -> Step[list[T]]:
        """`each` for every item, at most `concurrency` at once; results in item order, failure as in `gather`."""
        return self._interpreter.map(each, items, concurrency)

    def sleep(self, duration: Duration) -> Step[None]:
        """Wait, however often the process restarts; never shorter."""
        interpreter = self._interpreter
        return interpreter.sleep(interpreter.clock_ms + milliseconds(duration, name="sleep"))

    def sleep_until(self, when: datetime) -> Step[None]:
        """Wait until `when`, which must have a time zone."""
        if when.tzinfo is None:
            message = "sleep_until needs a datetime with a time zone, such as run.now() + timedelta(hours=1)"
            raise TypeError(message)
        due = when.astimezone(UTC) - _EPOCH
        return self._interpreter.sleep((due.days * 86_400 + due.seconds) * 1000 + -(-due.microseconds // 1000))

    def emit(
        self,
        type: str,  # noqa: A002 - CloudEvents' word
        data: object,
        *,
        topic: str,
        key: str | None = None,
        subject: str | None = None,
    ) -> Step[str]:
        """Publish an event. The step is done when it is in the outbox, from where it leaves however often the process dies; its result is the CloudEvents id."""
        return self._interpreter.emit(type, data, topic=topic, key=key, subject=subject)

    def now(self) -> datetime:
        """The run's clock: the newest append time it has seen, in UTC."""
        return datetime.fromtimestamp(self._interpreter.clock_ms / 1000, UTC)

    def random(self) -> float:
        """A number from 0 (included) to 1 (not), the same on every replay."""
        return (self._interpreter.chance() >> 75) / (1 << 53)

    def uuid(self) -> str:
        """A random UUID (version 4 form), the same on every replay."""
        bits = self._interpreter.chance()
        bits = (bits & ~(0xF << 76)) | (4 << 76)
        bits = (bits & ~(0x3 << 62)) | (0x2 << 62)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
