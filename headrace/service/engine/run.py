"""`Run`: the only thing a workflow awaits. What a workflow's author sees of the engine; it makes the steps, `interpreter.py` drives them."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast, overload

from headrace.handlers.definition import Handler
from headrace.handlers.duration import milliseconds
from headrace.handlers.payload import payload_type
from headrace.service.engine.approval import ROLE_CHARS_MAX, ROLES_MAX
from headrace.service.engine.group import Gather, Map, Race
from headrace.service.engine.limit import TEXT_MAX, LimitExceeded, check_child_depth, check_fan_out
from headrace.service.engine.step import ApprovalStep, CallStep, ChildStep, EmitStep, Step, TimerStep
from headrace.topics.approval import STEP_KIND
from headrace.topics.spec import is_topic_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headrace.handlers.duration import Duration
    from headrace.service.engine.approval import Approval
    from headrace.service.engine.interpreter import Interpreter
    from headrace.service.engine.step import ChildCode
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

_HANDLER = "a function decorated with @handler"
_WORKFLOW = "a function decorated with @workflow"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Run:
    """One execution of a workflow. gather, race and map take steps, and coroutines of helpers that await this run.

    `id` contains the partition of the run log; `key` is "" if the workflow has none; `event` is what started the run, None if no event did.
    Whoever makes more steps than `limits.tasks_per_run`, or a group of more than `limits.fan_out`, gets LimitExceeded.
    """

    __slots__ = ("_depth", "_interpreter", "event", "id", "key")

    id: str
    key: str
    event: Event[Any] | None

    def __init__(
        self, interpreter: Interpreter, run_id: str, key: str, event: Event[Any] | None, depth: int = 0
    ) -> None:
        self._interpreter = interpreter
        self._depth = depth  # so many runs wait for this one, one through the other
        self.id = run_id
        self.key = key
        self.event = event

    def call(self, handler: Handler[*Ts, T], *args: *Ts, compensate: Handler[*Ts, Any] | None = None) -> Step[T]:
        """Call a task. Arguments are encoded now. If the run fails after this task has finished, `compensate` is called with the same arguments.

        Awaiting it raises TaskFailed, once the task has failed for good. PayloadError: an argument is not what the handler says, or too large.
        """
        interpreter = self._interpreter
        if not isinstance(handler, Handler):  # pyright: ignore[reportUnnecessaryIsInstance] - bodies may be untyped
            raise interpreter.forbidden(f"run.call of {_name(handler)}", _HANDLER)
        if compensate is not None and not isinstance(compensate, Handler):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise interpreter.forbidden(f"run.call with compensate={_name(compensate)}", _HANDLER)
        ref = f"{interpreter.reference()}/{handler.name}"
        arguments = handler.arguments.encode(args, limit_bytes=interpreter.limits.payload_bytes)
        step: CallStep[T] = CallStep(interpreter, ref, handler, arguments, interpreter.clock_ms, compensate)
        return interpreter.issue(step)

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
        group: Gather[Any] = Gather(self._interpreter, self._reference(steps))
        group.join(self._members(group.ref, steps))
        return self._interpreter.own(group)

    @overload
    def race(self, step1: Awaitable[T1], step2: Awaitable[T2], /) -> Step[T1 | T2]: ...
    @overload
    def race(self, *steps: Awaitable[T]) -> Step[T]: ...
    def race(self, *steps: Awaitable[Any]) -> Step[Any]:
        """The first success, in log order; the others are given up. If all fail, the last error. ValueError: there is none to wait for."""
        if not steps:
            raise ValueError("race needs at least one step")
        group: Race[Any] = Race(self._interpreter, self._reference(steps))
        group.join(self._members(group.ref, steps))
        return self._interpreter.own(group)

    def map(self, each: Callable[[A], Awaitable[T]], items: Sequence[A], *, concurrency: int = 10) -> Step[list[T]]:
        """`each` for every item, at most `concurrency` (from 1) at once; results in item order, failure as in `gather`."""
        if concurrency < 1:
            raise ValueError("map needs a concurrency of at least 1")
        items = list(items)
        check_fan_out(len(items), self._interpreter.limits.fan_out)
        interpreter = self._interpreter
        group = Map(interpreter, interpreter.reference())
        group.begin(each, items, concurrency, depth=interpreter.depth_inside())
        return interpreter.own(group)

    def sleep(self, duration: Duration) -> Step[None]:
        """Wait so long by the log's clock, however often the process restarts; never shorter. A duration of 0 is refused: DefinitionError."""
        interpreter = self._interpreter
        return self._sleep(interpreter.clock_ms + milliseconds(duration, name="sleep"))

    def sleep_until(self, when: datetime) -> Step[None]:
        """Wait until `when`; over at once if that is past. TypeError: it has no time zone."""
        if when.tzinfo is None:
            raise TypeError("sleep_until needs a datetime with a time zone, such as run.now() + timedelta(hours=1)")
        due = when.astimezone(UTC) - _EPOCH
        return self._sleep((due.days * 86_400 + due.seconds) * 1000 + -(-due.microseconds // 1000))

    def approval(
        self, *, title: str = "", roles: Sequence[str] = (), timeout: Duration | None = None
    ) -> Step[Approval]:
        """Wait until somebody approves or rejects, or `timeout` is over by the log's clock (None: for ever). All three are data, an `Approval`, never an error.

        `title` tells people what they are asked, in up to 8 192 characters. Whoever decides must have one of `roles` (up to 100, of 1 to 200 characters);
        without any, anybody may. TypeError: what is given is no text; ValueError: a role is empty; LimitExceeded: too many, or too long; DefinitionError:
        `timeout` is 0 or no duration.
        """
        interpreter = self._interpreter
        _check_text("title", title, empty=True, of="approval")
        roles = _roles(roles)
        now_ms = interpreter.clock_ms
        due_at_ms = None if timeout is None else now_ms + milliseconds(timeout, name="approval timeout")
        ref = f"{interpreter.reference()}/{STEP_KIND}"
        return interpreter.issue(ApprovalStep(interpreter, ref, title, roles, due_at_ms, now_ms))

    def emit(
        self,
        type: str,
        data: object,
        *,
        topic: str,
        key: str | None = None,
        subject: str | None = None,
    ) -> Step[str]:
        """Publish an event; the result is its CloudEvents id. The run goes on at once: its next records come behind the event in the log, or not at all.

        Without `key` it gets the run's. ValueError: a text is empty, too long or not Unicode, or no topic can have the name.
        """
        interpreter = self._interpreter
        _check_text("type", type)
        _check_text("topic", topic)
        if not is_topic_name(topic):
            raise ValueError(f"emit cannot use {topic!r:.80} as a topic: 1 to 249 letters, digits, dots, '_' and '-'")
        if key is None:
            key = self.key or None
        else:
            _check_text("key", key, empty=True)
        if subject is not None:
            _check_text("subject", subject, empty=True)
        ref = f"{interpreter.reference()}/emit"
        raw = payload_type(data.__class__).encode(data, limit_bytes=interpreter.limits.payload_bytes)
        return interpreter.emit(EmitStep(interpreter, ref, topic, type, raw, key, subject))

    def call_child(self, workflow: ChildCode[A, T], input: A, *, key: str | None = None) -> Step[T]:
        """Run another workflow as a child of this run and wait for its result. If this run gives it up, or ends, the child is cancelled.

        The result is what the child returned. `key` is the child's, 1 to 8 192 characters; None: what the workflow's `key=` says of the input. Its policy for
        a held key (`on_conflict`) and its timeout are the child's workflow's own. Awaiting it raises ChildFailed if the child does not succeed, or never begins
        because its key is held. PayloadError: the input is not what the workflow says, or too large; ValueError: `key` is empty; LimitExceeded: it is too long,
        or 64 runs wait for each other already, this one the last.
        """
        check_child_depth(self._depth)
        return self._child(workflow, input, key, "run.call_child", awaited=True)

    def start_child(self, workflow: ChildCode[A, Any], input: A, *, key: str | None = None) -> Step[str]:
        """Start another workflow; the result is the id of its run. It is on its own then: what becomes of either run does not concern the other.

        If its policy joins it to the open run of its key, or rejects it, there is no run of that id. `key` and errors are as for `call_child`; nobody waits,
        so nothing is nested.
        """
        return self._child(workflow, input, key, "run.start_child", awaited=False)

    def now(self) -> datetime:
        """The run's clock: the newest append time it has seen, in UTC."""
        return datetime.fromtimestamp(self._interpreter.clock_ms / 1000, UTC)

    def random(self) -> float:
        """A number from 0 (included) to 1 (not), the same on every replay."""
        return (self._chance() >> 75) / (1 << 53)

    def uuid(self) -> str:
        """A random UUID (version 4 form), the same on every replay."""
        bits = self._chance()
        bits = (bits & ~(0xF << 76)) | (4 << 76)
        bits = (bits & ~(0x3 << 62)) | (0x2 << 62)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _child(self, workflow: ChildCode[A, Any], input: A, key: str | None, asked: str, *, awaited: bool) -> Step[Any]:
        interpreter = self._interpreter
        if not hasattr(type(workflow), "key_of"):  # bodies may be untyped
            named = getattr(workflow, "name", None) or _name(workflow)
            raise interpreter.forbidden(f"{asked} of {named}", _WORKFLOW)
        if key is not None:
            _check_text("key", key, of=asked)
        ref = f"{interpreter.reference()}/{workflow.name}"
        raw = workflow.encode_input(input, limit_bytes=interpreter.limits.payload_bytes)
        if key is None:
            key = workflow.key_of(raw)
        step: ChildStep[Any] = ChildStep(interpreter, ref, workflow, raw, key, awaited=awaited)
        return interpreter.issue(step)

    def _sleep(self, due_at_ms: int) -> TimerStep:
        interpreter = self._interpreter
        return interpreter.issue(
            TimerStep(interpreter, f"{interpreter.reference()}/sleep", due_at_ms, interpreter.clock_ms)
        )

    def _chance(self) -> int:
        """128 bits from the id of the run (of the first one of a chain of retries) and the step's place."""
        text = f"{self._interpreter.seed}{self._interpreter.reference()}"
        return int.from_bytes(sha256(text.encode()).digest()[:16], "big")

    def _reference(self, members: Sequence[Awaitable[Any]]) -> str:
        """The place of a group. If it cannot be made, its coroutines will never be awaited, which needs no warning."""
        try:
            check_fan_out(len(members), self._interpreter.limits.fan_out)
            return self._interpreter.reference()
        except BaseException:
            _close(members)
            raise

    def _members(self, ref: str, members: Sequence[Awaitable[Any]]) -> list[Step[Any]]:
        interpreter = self._interpreter
        try:
            depth = interpreter.depth_inside() if any(map(inspect.iscoroutine, members)) else 0
            for member in members:
                if isinstance(member, Step):
                    if not member.belongs_to(interpreter):
                        raise interpreter.forbidden(f"waiting for {member.ref} of another run", "steps of this run")
                elif not inspect.iscoroutine(member):
                    instead = "steps of this run, or coroutines that await them"
                    raise interpreter.forbidden(f"waiting for {_name(member)}", instead)
        except BaseException:
            _close(members)
            raise
        return [
            member if isinstance(member, Step) else interpreter.fork(f"{ref}/{index}", depth, cast("Any", member))
            for index, member in enumerate(members)
        ]


def _close(members: Sequence[Awaitable[Any]]) -> None:
    for member in members:
        if inspect.iscoroutine(member):
            member.close()


def _roles(roles: Sequence[str]) -> tuple[str, ...]:
    if isinstance(roles, str):
        raise TypeError(f"approval needs a list of roles, such as roles=[{roles!r}]")
    if len(roles) > ROLES_MAX:
        raise LimitExceeded(f"approval was given {len(roles)} roles; {ROLES_MAX} are allowed.")
    for role in roles:
        _check_text("role", role, of="approval", chars_max=ROLE_CHARS_MAX)
    return tuple(roles)


def _check_text(name: str, text: object, *, empty: bool = False, of: str = "emit", chars_max: int = TEXT_MAX) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{of} needs text as {name}, not {type(text).__qualname__}")
    if not text and not empty:
        raise ValueError(f"{of} needs a {name} that is not empty")
    if len(text) > chars_max:
        raise LimitExceeded(f"{of} was given a {name} of {len(text)} characters; {chars_max} are allowed.")
    if not text.isascii():
        text.encode()  # ValueError: half a surrogate pair is no Unicode


def _name(value: object) -> str:
    return getattr(value, "__qualname__", None) or type(value).__qualname__
