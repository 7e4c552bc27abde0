"""`@handler`: what a task calls, with the policies around each call.

A definition is a value: importing it registers nothing, and its annotations are looked at on loading the app
(`load`), when all names of the app's modules exist. Called by users' modules, the app loader, the interpreter (types)
and the guard (calls).
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar, TypeVarTuple, cast, overload

import anyio.to_thread

from headrace.handlers.breaker import Breaker
from headrace.handlers.duration import Duration, milliseconds
from headrace.handlers.payload import ArgumentsType, PayloadType, payload_type
from headrace.handlers.pool import Pool
from headrace.handlers.rate_limit import RateLimit
from headrace.handlers.retry import Retry
from headrace.topics.errors import DefinitionError

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler(Generic[*Ts, T_co]):
    """A definition. Calling it directly runs the bare function, without policies: for unit tests.

    `timeout_ms` is for one attempt; None: the setting `defaults.timeout`. `retry` None: the settings `defaults.retry`. `place` is `file:line`, for
    messages.
    """

    __slots__ = (
        "__weakref__",
        "_arguments",
        "_result",
        "breaker",
        "function",
        "is_async",
        "name",
        "place",
        "pool",
        "rate_limit",
        "retry",
        "timeout_ms",
    )

    name: str
    function: Callable[..., Any]
    is_async: bool
    place: str
    timeout_ms: int | None
    retry: Retry | None
    breaker: Breaker | None
    pool: Pool | None
    rate_limit: RateLimit | None
    _arguments: ArgumentsType | None
    _result: PayloadType[Any] | None

    def __init__(self, function: Callable[..., Any], policy: HandlerPolicy) -> None:
        """Use `@handler`. DefinitionError: HR2032 the name, HR2033 what was decorated cannot be called with
        positions.
        """
        put = functools.partial(object.__setattr__, self)
        put("name", _checked_name(function, policy.name))
        put("function", function)
        put("is_async", _is_async(function))
        put("place", _place(function))
        put("timeout_ms", policy.timeout_ms)
        put("retry", policy.retry)
        put("breaker", policy.breaker)
        put("pool", policy.pool)
        put("rate_limit", policy.rate_limit)
        put("_arguments", None)
        put("_result", None)
        _check_positions(self.name, function)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"A handler does not change: {self.name}.{name} cannot be set.")

    def __repr__(self) -> str:
        return f"<Handler {self.name} at {self.place}>"

    def __call__(self, *args: *Ts) -> Awaitable[T_co]:
        """Run the function itself: no policy, no payload, no attempt. A `def` runs in a thread."""
        if self.is_async:
            return self.function(*args)
        return anyio.to_thread.run_sync(functools.partial(self.function, *args))

    @property
    def __wrapped__(self) -> Callable[[*Ts], Any]:
        """The function, for `inspect.signature` and documentation tools."""
        return self.function

    def load(self) -> None:
        """Resolve the annotations. DefinitionError (HR2031, HR2034) names the handler and the parameter. Idempotent."""
        if self._result is not None:
            return
        hints = _hints(self.name, self.function)
        parameters = [each for each in _parameters(self.function).values() if each.kind in _POSITIONAL]
        types = [
            payload_type(hints.get(each.name, Any), name=f"{self.place}: {self.name}({each.name})")
            for each in parameters
        ]
        required = sum(each.default is inspect.Parameter.empty for each in parameters)
        result = hints.get("return", Any)
        if result in (typing.Never, typing.NoReturn):
            result = None
        arguments = ArgumentsType([each.name for each in parameters], types, required=required)
        object.__setattr__(self, "_arguments", arguments)
        object.__setattr__(self, "_result", payload_type(result, name=f"{self.place}: {self.name}() -> result"))

    @property
    def arguments(self) -> ArgumentsType:
        """How arguments travel; loads on first use."""
        if self._arguments is None:
            self.load()
        return cast("ArgumentsType", self._arguments)

    @property
    def result(self) -> PayloadType[T_co]:
        """How the result travels; loads on first use."""
        if self._result is None:
            self.load()
        return cast("PayloadType[T_co]", self._result)


class HandlerDecorator(Protocol):
    """`@handler` or `@handler(...)`, on `async def`, or on `def` (runs in a thread).

    `name`: what the run log calls it; None: the function's name. A run in flight finds its handlers by it. `timeout` is for one attempt; None: the
    setting `defaults.timeout`. Without `retry` the settings
    `defaults.retry` hold, which are those of `Retry()`. Handlers that name the same breaker, pool or rate limit share it. Raises DefinitionError.
    """

    @overload
    def __call__(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], /) -> Handler[*Ts, T]: ...
    @overload
    def __call__(self, function: Callable[[*Ts], T], /) -> Handler[*Ts, T]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        pool: Pool | None = None,
        rate_limit: RateLimit | None = None,
    ) -> HandlerDecorator: ...


class HandlerPolicy:
    """What `@handler(...)` was given; also the decorator itself."""

    __slots__ = ("breaker", "name", "pool", "rate_limit", "retry", "timeout_ms")

    def __init__(
        self,
        *,
        name: str | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        pool: Pool | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        _check_kind("retry", retry, Retry)
        _check_kind("breaker", breaker, Breaker)
        _check_kind("pool", pool, Pool)
        _check_kind("rate_limit", rate_limit, RateLimit)
        self.name = name
        self.timeout_ms = None if timeout is None else milliseconds(timeout, name="timeout")
        self.retry = retry
        self.breaker = breaker
        self.pool = pool
        self.rate_limit = rate_limit

    def __call__(self, function: Callable[..., Any] | None = None, /, **given: Any) -> Any:
        """Decorate, or take the policies first: the overloads of HandlerDecorator say which."""
        if function is None:
            return HandlerPolicy(**given)
        if given:
            do = "Write @handler(timeout=..., retry=...) in the line above the function."
            raise DefinitionError("@handler takes a function or policies, not both.", code="HR2033", do=do)
        return Handler[*tuple[Any, ...], Any](function, self)


# --- checks at definition ---------------------------------------------------------------------------------------------


def _check_kind(field: str, given: object, kind: type[object]) -> None:
    if given is not None and not isinstance(given, kind):
        raise DefinitionError(
            f"{field}={given!r} is not a {kind.__name__}.", code="HR2033", do=f"Give {kind.__name__}(...)."
        )


def _checked_name(function: Callable[..., Any], given: str | None) -> str:
    name = getattr(function, "__name__", type(function).__name__) if given is None else given
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise DefinitionError(
            f"{name!r:.160} is not a handler's name.",
            code="HR2032",
            why="Names become metric labels, task references and addresses.",
            do="Use 1 to 128 of A-Z a-z 0-9 _ . - and give it with @handler(name=...).",
        )
    return name


def _is_async(function: Callable[..., Any]) -> bool:
    if not callable(function):
        raise DefinitionError(f"{function!r:.160} is not a function.", code="HR2033", do="Decorate a function.")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _check_positions(name: str, function: Callable[..., Any]) -> None:
    if isinstance(function, (staticmethod, classmethod, type, Handler)):
        raise _uncallable(name, f"it is a {type(cast('object', function)).__name__}", "Decorate a function.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _uncallable(name, "it is a generator", "Return a list, or emit from the workflow.")
    for parameter in _parameters(function).values():
        if parameter.kind in _POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if parameter.default is inspect.Parameter.empty:
                raise _uncallable(name, f"{parameter.name} can only be given by keyword", "Make it positional.")
            continue
        raise _uncallable(name, f"{parameter.name} takes any number of arguments", "Take a list instead.")


def _uncallable(name: str, why: str, do: str) -> DefinitionError:
    return DefinitionError(
        f"{name} cannot be a handler: {why}.", code="HR2033", why="A workflow gives arguments by position.", do=do
    )


def _parameters(function: Callable[..., Any]) -> typing.Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise _uncallable(repr(function), "its signature is unknown", "Write a function around it.") from error


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else getattr(function, "__module__", "?")


# --- annotations, on loading ------------------------------------------------------------------------------------------


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = function
    while isinstance(target, functools.partial):
        target = cast("functools.partial[Any]", target).func
    if not (inspect.isroutine(target) or isinstance(target, type)):
        target = target.__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception as error:
        where = _first_unresolved(target)
        raise DefinitionError(
            f"The annotation of {name}({where}) cannot be resolved: {type(error).__name__}: {error}",
            code="HR2034",
            why="Arguments and results are typed by annotations.",
            do="Import or define its names at module level, not under TYPE_CHECKING and not inside a function.",
        ) from error


def _first_unresolved(target: Any) -> str:
    for parameter, annotation in getattr(target, "__annotations__", {}).items():
        alone = cast("Any", lambda: None)
        alone.__annotations__ = {parameter: annotation}
        try:
            typing.get_type_hints(alone, globalns=getattr(inspect.unwrap(target), "__globals__", {}))
        except Exception:  # noqa: BLE001 - the first one is reported by the caller
            return f"{parameter}: {annotation!r:.160}"
    return "?"


handler: HandlerDecorator = HandlerPolicy()
"""The decorator; at the end of the file because making one runs the checks above."""
