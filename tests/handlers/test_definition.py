import asyncio
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace.handlers.breaker import Breaker
from headrace.handlers.definition import Handler, handler
from headrace.handlers.pool import Pool
from headrace.handlers.retry import Retry
from headrace.topics.errors import DefinitionError

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers


@handler
async def plain(number: int, text: str = "x") -> str:
    """Say it."""
    return f"{number}{text}"


@handler(
    name="shop.charge-card", timeout="2s", retry=Retry(attempts=1), breaker=Breaker("card"), pool=Pool("card", size=2)
)
def charge(amount: int) -> "Later":
    return Later(str(threading.get_ident() + amount * 0))


class Later(str):
    __slots__ = ()


@handler
async def forward(value: "DefinedBelow") -> None: ...


class DefinedBelow(dict[str, int]):
    pass


@handler
async def unresolved(first: int, value: "OnlyForTypeCheckers") -> None: ...


def test_a_bare_decorator_has_the_default_policies() -> None:
    assert isinstance(plain, Handler)
    assert (plain.name, plain.timeout_ms, plain.breaker, plain.pool) == ("plain", None, None, None)
    assert plain.retry is None  # the settings' say
    assert plain.is_async
    assert plain.place.startswith(__file__)


def test_policies_are_kept() -> None:
    assert charge.name == "shop.charge-card"
    assert charge.timeout_ms == 2_000
    assert charge.retry == Retry(attempts=1)
    assert charge.breaker == Breaker("card")
    assert charge.pool == Pool("card", size=2)
    assert not charge.is_async


async def test_calling_it_runs_the_bare_function() -> None:
    assert await plain(1, "y") == "1y"


async def test_calling_a_synchronous_one_runs_it_in_a_thread() -> None:
    assert await charge(1) != str(threading.get_ident())


def test_it_does_not_change() -> None:
    with pytest.raises(AttributeError, match=r"plain\.name"):
        plain.name = "other"
    with pytest.raises(AttributeError):
        plain.anything = 1


def test_its_signature_is_the_functions() -> None:
    assert list(inspect.signature(plain).parameters) == ["number", "text"]


def test_annotations_become_payload_types_on_loading() -> None:
    plain.load()
    assert plain.arguments.names == ("number", "text")
    assert plain.arguments.required == 1
    assert plain.arguments.decode(plain.arguments.encode((1,))) == (1,)
    assert plain.result.decode(b'"a"') == "a"


def test_no_annotation_is_plain_json() -> None:
    @handler
    async def loose(a, b=None):  # noqa: ANN001, ANN202
        return a

    assert loose.arguments.encode(({"a": [1]}, None)) == b'[{"a":[1]},null]'
    assert loose.result.annotation is Any


def test_an_unresolved_annotation_names_handler_and_parameter() -> None:
    with pytest.raises(DefinitionError) as refused:
        unresolved.load()
    assert refused.value.code == "HR2034"
    assert "unresolved(value: " in refused.value.message
    assert "OnlyForTypeCheckers" in refused.value.message


def test_a_type_that_is_no_payload_names_handler_and_place() -> None:
    @handler
    async def bad(good: int, tags: set[str]) -> None: ...

    @handler
    async def worse(good: int) -> list[set[int]]: ...

    with pytest.raises(DefinitionError, match=r"test_definition\.py:\d+: bad\(tags\): .*set"):
        bad.load()
    with pytest.raises(DefinitionError, match=r"test_definition\.py:\d+: worse\(\) -> result: .*set"):
        worse.load()


def keyword_only(*, a: int) -> None: ...
def any_number(*a: int) -> None: ...
def any_keywords(**a: int) -> None: ...
def generator(a: int):  # noqa: ANN201
    yield a


async def async_generator(a: int):  # noqa: ANN201
    yield a


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (keyword_only, "a can only be given by keyword"),
        (any_number, "a takes any number"),
        (any_keywords, "a takes any number"),
        (generator, "generator"),
        (async_generator, "generator"),
        (plain, "it is a Handler"),
        (DefinedBelow, "it is a type"),
        (staticmethod(keyword_only), "it is a staticmethod"),
        (3, "not a function"),
    ],
)
def test_what_a_workflow_cannot_call_by_position_is_refused(function: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why) as refused:
        handler(name="x")(function)
    assert refused.value.code == "HR2033"


def test_a_keyword_only_parameter_with_a_default_is_left_alone() -> None:
    @handler
    async def fine(a: int, *, client: object = None) -> int:
        return a

    assert fine.arguments.names == ("a",)


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "a\n", "a\x00", "é", "a" * 129, "=cmd", "a/b", "<lambda>", "\u202ea", 3]
)
def test_a_name_outside_the_charset_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError) as refused:
        handler(name=name)(lambda: None)
    assert refused.value.code == "HR2032"


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(DefinitionError, match="<lambda>"):
        handler(lambda: None)


@pytest.mark.parametrize(
    "wrong", [{"timeout": 3}, {"timeout": "0s"}, {"retry": 3}, {"breaker": "card"}, {"pool": 3}, {"timeout": "3"}]
)
def test_wrong_policies_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        handler(**wrong)


async def test_partials_and_callable_objects_are_functions_too() -> None:
    class Caller:
        async def __call__(self, number: int) -> str:
            return str(number)

    partial = handler(name="partial")(functools.partial(plain.function, text="z"))
    called = handler(name="called")(Caller())
    assert partial.is_async
    assert await partial(1) == "1z"
    assert called.is_async
    assert await called(2) == "2"
    assert called.arguments.decode(b"[2]") == (2,)
    assert partial.arguments.decode(b"[2]") == (2,)
    assert asyncio.iscoroutinefunction(plain.function)
