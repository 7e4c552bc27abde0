"""`Workflow` and its decorator: what a run executes, and how events and people start it.

A workflow is a frozen value that is judged when it is made. Making one registers nothing: loading an app collects them (`loader.py`). Types are resolved
when they are first asked for, so that annotations may refer to what a module defines further down.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args

from headrace.handlers.duration import milliseconds
from headrace.handlers.payload import PayloadError, PayloadType, payload_type
from headrace.service.definitions.definition_code import (
    KEY_INVALID,
    NAME_INVALID,
    OPTION_INVALID,
    SCHEDULE_INVALID,
    SIGNATURE_INVALID,
    TRIGGER_INVALID,
)
from headrace.service.definitions.place import Place, place_of
from headrace.service.definitions.resolved_annotation import resolved_annotation
from headrace.service.definitions.schedule import Schedule
from headrace.service.definitions.trigger import TOPIC_NAME, EventTrigger
from headrace.topics.command import OnConflict
from headrace.topics.errors import DefinitionError
from headrace.topics.schedule import ScheduleDefinition, schedule_id

if TYPE_CHECKING:
    from headrace.handlers.duration import Duration
    from headrace.service.engine.run import Run

A = TypeVar("A")
T = TypeVar("T")

Conflict = Literal["allow", "reject", "join", "queue"]

_SAMPLE_TICK = b'{"scheduled_at":"2026-01-01T00:00:00.000Z","schedule":"name-0123456789"}'

# Names appear in run ids' digests, metric labels, URLs and on the command line.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,49}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Workflow(Generic[A, T]):
    """A definition, identified by namespace, name and version. Made by `@workflow`.

    `key` and `on_conflict` belong together: without a key the policy is `allow`. `timeout_ms` is for a whole run, `None` is no limit. `emits` are the
    topics that its runs publish to, as far as it says so.
    """

    function: Callable[[Run, A], Coroutine[Any, Any, T]]
    name: str
    namespace: str
    version: str
    triggers: tuple[EventTrigger, ...]
    schedules: tuple[Schedule, ...]
    key: Callable[[A], str] | None
    on_conflict: OnConflict
    timeout_ms: int | None
    emits: tuple[str, ...]
    place: Place

    def __repr__(self) -> str:
        return f"<Workflow {self.namespace}/{self.name} version {self.version} at {self.place}>"

    @property
    def id(self) -> tuple[str, str, str]:
        """Namespace, name, version."""
        return self.namespace, self.name, self.version

    @property
    def description(self) -> str:
        """The function's docstring, for people; "" if it has none."""
        return inspect.getdoc(self.function) or ""

    @cached_property
    def input_type(self) -> PayloadType[A]:
        """The input's JSON form, by its annotation. DefinitionError if that cannot be resolved or be a payload."""
        parameter = self._code().co_varnames[1]
        return self._payload_type(parameter, f"{self.name}({parameter})")

    @cached_property
    def result_type(self) -> PayloadType[T]:
        """The result's JSON form, by its annotation. DefinitionError as for the input."""
        return self._payload_type("return", f"{self.name}()'s result")

    @cached_property
    def code_hash(self) -> str:
        """12 hex digits of the function's source, to show people what is loaded. It pins nothing."""
        try:
            text = inspect.getsource(self.function).encode()
        except (OSError, TypeError):  # no source at hand
            text = _code_text(self._code())
        return blake2b(text, digest_size=6).hexdigest()

    @cached_property
    def scheduled(self) -> dict[str, ScheduleDefinition]:
        """Its schedules by id. DefinitionError (HR2016) if the input can be neither a tick nor None."""
        takes_tick = self._takes_tick() if self.schedules else False
        return {
            schedule_id(self.namespace, self.name, each.spec): ScheduleDefinition(
                namespace=self.namespace,
                workflow=self.name,
                version=self.version,
                spec=each.spec,
                timeout_ms=self.timeout_ms,
                takes_tick=takes_tick,
            )
            for each in self.schedules
        }

    def _takes_tick(self) -> bool:
        tick, none = self._takes(_SAMPLE_TICK), self._takes(b"null")
        _Refusal(self.place).unless(
            tick or none,
            SCHEDULE_INVALID,
            f"the input of {self.name} can be no tick, and a schedule has nothing else to give.",
            "Write `async def name(run: Run, tick: Tick)` with Tick from headrace; or None, or a type with its fields.",
        )
        return tick

    def _takes(self, raw: bytes) -> bool:
        try:
            self.input_type.decode(raw)
        except PayloadError:
            return False
        return True

    def begin(self, run: Run, raw: bytes) -> Coroutine[Any, Any, T]:
        """Decode the input and make the coroutine. Raises PayloadError."""
        return self.function(run, self.input_type.decode(raw))

    def encode_result(self, value: object) -> bytes:
        """The result as JSON. Raises PayloadError."""
        return self.result_type.encode(value)

    def encode_input(self, value: A, *, limit_bytes: int | None = None) -> bytes:
        """The input of a run as JSON. Raises PayloadError."""
        return self.input_type.encode(value, limit_bytes=limit_bytes)

    def decode_result(self, raw: bytes) -> T:
        """The result of a run again. Raises PayloadError."""
        return self.result_type.decode(raw)

    def key_of(self, raw: bytes) -> str | None:
        """The key of a run with this input, by `key=`; None without. Raises what that raises; TypeError, ValueError: it gave no text, or an empty one."""
        if self.key is None:
            return None
        key = cast("object", self.key(self.input_type.decode(raw)))
        if not isinstance(key, str):
            raise TypeError(f"The key of {self.name} is {type(key).__name__}, not text.")
        if not key:
            raise ValueError(f"The key of {self.name} is empty.")
        key.encode()  # ValueError: half a surrogate pair is no Unicode
        return key if type(key) is str else str.__str__(key)

    def _payload_type(self, parameter: str, name: str) -> PayloadType[Any]:
        annotation = resolved_annotation(cast("FunctionType", self.function), parameter)
        try:
            return payload_type(annotation, name=name)
        except DefinitionError as refused:
            raise _Refusal(self.place).of(refused) from refused

    def _code(self) -> CodeType:
        return cast("FunctionType", self.function).__code__


def workflow(
    *,
    on: EventTrigger | Schedule | Sequence[EventTrigger | Schedule] = (),
    key: Callable[[Any], str] | None = None,
    on_conflict: Conflict = "queue",
    name: str | None = None,
    namespace: str = "default",
    version: str = "1",
    timeout: Duration | None = None,
    emits: Sequence[str] = (),
) -> Callable[[Callable[[Run, A], Coroutine[Any, Any, T]]], Workflow[A, T]]:
    """Make an `async def f(run, input)` a workflow.

    `on`: what starts it, events and schedules; nothing means that people and clients do.
    `key` takes the typed input and gives the text that `on_conflict` is about: while a run
    with the same key is open, a start is queued behind it, rejected, joined to it, or allowed beside it. `timeout` is the run's. Several versions of a name
    may be loaded; new runs start with the newest, where numbers in the text count as numbers. Raises DefinitionError.
    """

    def define(function: Callable[[Run, A], Coroutine[Any, Any, T]]) -> Workflow[A, T]:
        place = _judged_function(function)
        with_place = _Refusal(place)
        named = function.__name__ if name is None else name
        with_place.unless(_is(named, _NAME), NAME_INVALID, f"{named!r} is no workflow name.", _NAME_RULE)
        with_place.unless(_is(namespace, _NAME), NAME_INVALID, f"{namespace!r} is no namespace.", _NAME_RULE)
        with_place.unless(_is(version, _VERSION), NAME_INVALID, f"{version!r} is no version.", _VERSION_RULE)
        starts = _judged_triggers(on, with_place)
        return Workflow(
            function=function,
            name=named,
            namespace=namespace,
            version=version,
            triggers=tuple(each for each in starts if isinstance(each, EventTrigger)),
            schedules=_judged_schedules(starts, key, with_place),
            key=key,
            on_conflict=_judged_policy(key, on_conflict, with_place),
            timeout_ms=_judged_timeout(timeout, with_place),
            emits=_judged_emits(emits, with_place),
            place=place,
        )

    return define


_NAME_RULE = "Names have 1 to 100 ASCII letters, digits, '_', '.' or '-', and begin with a letter, digit or '_'."
_VERSION_RULE = "Versions have 1 to 50 ASCII letters, digits, '.', '_', '+' or '-', such as \"2\" or \"1.4.0\"."
_FUNCTION_RULE = "Write it as `async def name(run: Run, order: Order) -> Result:`."


class _Refusal:
    """Makes the errors of one definition, each with its place."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def unless(self, sound: object, code: str, message: str, do: str) -> None:
        if not sound:
            raise DefinitionError(f"{self._place}: {message}", code=code, do=do)

    def of(self, refused: DefinitionError) -> DefinitionError:
        """The same refusal, with the place."""
        return DefinitionError(f"{self._place}: {refused.message}", code=refused.code, why=refused.why, do=refused.do)


def _judged_function(function: object) -> Place:
    if not isinstance(function, FunctionType):
        what = f"{type(function).__name__} {function!r}"
        raise DefinitionError(
            f"@workflow was given a {what:.200}.",
            code=SIGNATURE_INVALID,
            do=f"{_FUNCTION_RULE} Put @workflow on top of other decorators only if they return such a function.",
        )
    place = place_of(function)
    assert place is not None  # noqa: S101 - a FunctionType has code
    refusal = _Refusal(place)
    shown = function.__name__
    asynchronous = inspect.iscoroutinefunction(function) and bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    refusal.unless(
        asynchronous, SIGNATURE_INVALID, f"the workflow {shown} is not an `async def` function.", _FUNCTION_RULE
    )
    parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    two = len(parameters) == 2 and all(parameter.kind in positional for parameter in parameters)
    given = ", ".join(parameter.name for parameter in parameters)
    refusal.unless(
        two, SIGNATURE_INVALID, f"the workflow {shown} takes ({given}), not a run and an input.", _FUNCTION_RULE
    )
    return place


def _judged_triggers(on: object, refusal: _Refusal) -> tuple[EventTrigger | Schedule, ...]:
    if isinstance(on, EventTrigger | Schedule):
        return (on,)
    listed: tuple[object, ...] = (
        tuple(cast("Sequence[object]", on)) if isinstance(on, Sequence) and not isinstance(on, str) else (on,)
    )
    for trigger in listed:
        message = f"on={trigger!r} is no trigger."
        sound = isinstance(trigger, EventTrigger | Schedule)
        refusal.unless(sound, TRIGGER_INVALID, message, 'Write on=EventTrigger("orders") or on=Schedule(every="5m").')
    return cast("tuple[EventTrigger | Schedule, ...]", listed)


def _judged_schedules(
    starts: tuple[EventTrigger | Schedule, ...], key: object, refusal: _Refusal
) -> tuple[Schedule, ...]:
    schedules = tuple(each for each in starts if isinstance(each, Schedule))
    refusal.unless(
        key is None or not schedules,
        SCHEDULE_INVALID,
        "key= and a schedule: a tick has nothing to make a key of.",
        "Schedule(overlap=...) says what happens while a run is open; events with a key start a workflow of their own.",
    )
    ids = {schedule_id("", "", each.spec) for each in schedules}
    message = "two of its schedules have the same slots."
    refusal.unless(len(ids) == len(schedules), SCHEDULE_INVALID, message, "Keep one of them.")
    return schedules


def _judged_policy(key: object, on_conflict: object, refusal: _Refusal) -> OnConflict:
    policies = get_args(Conflict)
    message = f"on_conflict={on_conflict!r} is no policy."
    refusal.unless(on_conflict in policies, KEY_INVALID, message, f"Choose one of {', '.join(policies)}.")
    if key is None:
        needless = on_conflict in {"queue", "allow"}  # "queue" is the default: nobody asked for it
        message = f"on_conflict={on_conflict!r} needs key=: without a key no two runs are in conflict."
        refusal.unless(needless, KEY_INVALID, message, "Give key=, for example key=lambda order: order.id.")
        return OnConflict.ALLOW
    plain = callable(key) and not inspect.iscoroutinefunction(key) and not inspect.isasyncgenfunction(key)
    refusal.unless(
        plain,
        KEY_INVALID,
        f"key={key!r} is no plain function.",
        "Give a function of the typed input that returns text at once.",
    )
    return OnConflict(cast("str", on_conflict))


def _judged_timeout(timeout: Duration | None, refusal: _Refusal) -> int | None:
    if timeout is None:
        return None
    try:
        return milliseconds(timeout, name="timeout")
    except DefinitionError as refused:
        raise refusal.of(refused) from refused


def _judged_emits(emits: object, refusal: _Refusal) -> tuple[str, ...]:
    listed: tuple[object, ...] = (
        (emits,)
        if isinstance(emits, str) or not isinstance(emits, Sequence)
        else tuple(cast("Sequence[object]", emits))
    )
    for topic in listed:
        sound = isinstance(topic, str) and topic not in {".", ".."} and _is(topic, TOPIC_NAME)
        message = (
            f"emits={topic!r} is no topic name."
            if isinstance(emits, Sequence)
            else f"emits={emits!r} is no list of topics."
        )
        refusal.unless(sound, OPTION_INVALID, message, 'Write emits=["orders.fulfilled"].')
    return cast("tuple[str, ...]", listed)


def _is(text: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _code_text(code: CodeType) -> bytes:
    inner = b"".join(_code_text(const) for const in code.co_consts if isinstance(const, CodeType))
    plain = tuple(const for const in code.co_consts if not isinstance(const, CodeType))
    return code.co_code + repr((code.co_names, plain)).encode() + inner
