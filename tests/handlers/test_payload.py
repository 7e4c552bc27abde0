import dataclasses
import enum
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.handlers.payload import (
    NESTING_MAX,
    ArgumentsType,
    PayloadError,
    PayloadTooLarge,
    PayloadType,
    payload_type,
)
from headrace.topics.errors import DefinitionError

Sku = NewType("Sku", str)


class Colour(enum.Enum):
    RED = "red"


class Line(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    price: float | None = None
    extra: Any = None


class Tagged(msgspec.Struct, tag="tagged", rename="camel"):
    order_id: int


@dataclasses.dataclass(frozen=True)
class Order:
    id: str
    lines: list[Line]
    placed: datetime
    parent: "Order | None" = None


@dataclasses.dataclass
class Sloppy:
    kept: int
    hidden: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass
class AlwaysEqual:
    inside: Any

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class Stock(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    available: bool
    left: int = pydantic.Field(alias="leftOver", ge=0)
    notes: Any = None
    secret_sauce: str = pydantic.Field(default="-", exclude=True)


class Pricier(Stock):
    surcharge: int = 0


@dataclasses.dataclass
class Shelf:
    stocks: dict[str, Stock]


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    gift: bool


NOW = datetime(2026, 11, 21, 10, 30, 1, 5, tzinfo=UTC)
LINE = Line("a", 2)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Line, LINE),
        (Tagged | None, Tagged(1)),
        (Tagged | None, None),
        (Order, Order("o", [LINE], NOW, Order("p", [], NOW))),
        (Stock, Stock(available=True, leftOver=3)),
        (list[Stock], [Stock(available=True, leftOver=3)]),
        (Shelf, Shelf({"a": Stock(available=False, leftOver=0)})),
        (Shelf | None, None),
        (Annotated[int, pydantic.Field(ge=1)], 1),
        (Annotated[int, msgspec.Meta(ge=1)], 1),
        (Point, Point(1, 2)),
        (Options, {"gift": True}),
        (Colour, Colour.RED),
        (Decimal, Decimal("1.10")),
        (UUID, UUID(int=7)),
        (datetime, NOW),
        (date, NOW.date()),
        (timedelta, timedelta(seconds=1, microseconds=1)),
        (bytes, b"\x00\xff"),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2)),
        (dict[int, str], {1: "a"}),
        (Mapping[str, Sequence[int]], {"a": [1]}),
        (Literal["a", "b"], "a"),
        (Sku, Sku("s")),
        (None, None),
        (int, 2**70),
        (float, 1e308),
        (Any, {"a": [1, 2.5, True, None, "x"]}),
        (object, [1]),
        (str, "\u2028\x00é😀"),
    ],
)
def test_a_value_is_read_back_as_it_was(annotation: Any, value: object) -> None:
    kind = payload_type(annotation)
    back = kind.decode(kind.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_pydantic_models_are_written_and_read_by_alias() -> None:
    kind = payload_type(Stock)
    assert kind.encode(Stock(available=True, leftOver=3)) == b'{"available":true,"leftOver":3,"notes":null}'
    with pytest.raises(PayloadError, match="leftOver"):
        kind.decode(b'{"available":true,"left":3}')


def test_what_a_model_leaves_out_on_purpose_is_not_missed() -> None:
    kind = payload_type(Stock)
    raw = kind.encode(Stock(available=True, leftOver=3, secret_sauce="mustard"))
    assert b"mustard" not in raw
    assert kind.decode(raw).secret_sauce == "-"


def test_a_subclass_is_written_as_what_was_promised() -> None:
    kind = payload_type(Stock)
    back = kind.decode(kind.encode(Pricier(available=True, leftOver=1, surcharge=5)))
    assert type(back) is Stock


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [(Any, {"a": (1, 2)}, {"a": [1, 2]}), (list[int], (1, 2), [1, 2]), (float, 1, 1.0), (Any, Colour, None)],
)
def test_harmless_differences_are_allowed(annotation: Any, value: object, expected: object) -> None:
    kind = payload_type(annotation)
    if value is Colour:  # a class is no harmless difference
        with pytest.raises(PayloadError):
            kind.encode(value)
        return
    assert kind.decode(kind.encode(value)) == expected


CYCLE: list[object] = []
CYCLE.append(CYCLE)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"),
    [
        (Line, {"sku": "a", "quantity": 1}, "$", "a dict was given, but a Line"),
        (Stock, {"available": True, "leftOver": 1}, "$", "Expected `Stock`"),
        (Stock, LINE, "$", "Line"),
        (Order, Order("o", [{"sku": "a", "quantity": 1}], NOW), "$.lines[0]", "a dict was given"),  # pyright: ignore[reportArgumentType]
        (Line, Line("a", "2"), "$.quantity", "Expected `int`, got `str`"),  # pyright: ignore[reportArgumentType]
        (int, True, "$", "got `bool`"),
        (int, "1", "$", "got `str`"),
        (None, 1, "$", "null"),
        (Any, {1: "a"}, "$", "the key 1 is not text"),
        (Any, [{"at": NOW}], "$[0].at", "a datetime was given, but a str"),
        (Any, LINE, "$", "a Line was given, but a dict"),
        (Any, Decimal(1), "$", "a Decimal was given, but a str"),
        (Any, SimpleNamespace(), "$", "unsupported"),
        (Any, {"a": {1, 2}}, "$.a", "a set has no order"),
        (Any, frozenset("a"), "$", "a frozenset has no order"),
        (Any, {}.keys(), "$", "a dict_keys has no order"),
        (list[int], {1}, "$", "a set has no order"),
        (Line, Line("a", 1, extra=[{1}]), "$.extra[0]", "a set has no order"),
        (Stock, Stock(available=True, leftOver=1, notes={1}), "$.notes", "a set has no order"),
        (Sloppy, Sloppy(1, hidden={1}), "$.hidden", "a set has no order"),
        (AlwaysEqual, AlwaysEqual({1}), "$.inside", "a set has no order"),
        (float, float("nan"), "$", "nan is not a number"),
        (Line, Line("a", 1, price=float("nan")), "$.price", "nan is not a number"),
        (Any, [float("-inf")], "$[0]", "-inf is not a number"),
        (Stock, Stock(available=True, leftOver=1, notes=[float("inf")]), "$.notes[0]", "inf is not a number"),
        (Any, CYCLE, "$", "contains itself"),
        (Any, DEEP, "$", "nested too deeply"),
        (str, "\ud800", "$", "not valid Unicode"),
        (Stock, Stock.model_construct(available="yes", left=1), "$", "Expected `bool`"),
    ],
)
def test_what_would_change_on_the_way_is_refused(annotation: Any, value: object, path: str, reason: str) -> None:
    with pytest.raises(PayloadError) as refused:
        payload_type(annotation).encode(value)
    assert refused.value.code == "HR7002"
    assert refused.value.path == path
    assert reason.lower() in refused.value.reason.lower()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_what_is_written_can_be_read_on_a_deeper_stack() -> None:
    kind = payload_type(Any)
    assert kind.decode(kind.encode(nested(NESTING_MAX))) == nested(NESTING_MAX)
    with pytest.raises(PayloadError, match="nested too deeply"):
        kind.encode(nested(NESTING_MAX + 1))
    with pytest.raises(PayloadError, match="nested too deeply"):
        arguments_of(Any).encode((nested(NESTING_MAX + 1),))


def test_no_payload_is_quoted_in_a_reason() -> None:
    for annotation, raw in ((Line, b'{"sku":"hunter2","quantity":"hunter2"}'), (Stock, b'{"available":"hunter2"}')):
        with pytest.raises(PayloadError) as refused:
            payload_type(annotation).decode(raw)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(PayloadError) as refused:
        payload_type(Stock).encode(Stock.model_construct(available="hunter2", left=1))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("annotation", [Line, Stock, Any, dict[str, Any]])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"NaN",
        b'{"sku":"a","quantity":1,"available":true,"leftOver":NaN}',
        b'{"sku":"a","quantity":1,"available":true,"leftOver":1,"notes":1e400,"extra":1e400}',
        b'{"sku":"\xff","quantity":1}',
        b'{"sku":"\\ud800","quantity":1,"available":true,"leftOver":1}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"{} {}",
    ],
)
def test_malformed_json_is_refused_whoever_reads_it(annotation: Any, raw: bytes) -> None:
    with pytest.raises(PayloadError) as refused:
        payload_type(annotation).decode(raw)
    assert refused.value.code == "HR7001"
    assert len(str(refused.value)) < 700


def test_a_place_inside_is_named() -> None:
    with pytest.raises(PayloadError) as refused:
        payload_type(Order).decode(b'{"id":"a","lines":[{"sku":"x","quantity":"1"}],"placed":"2026-01-01T00:00:00Z"}')
    assert refused.value.path == "$.lines[0].quantity"
    with pytest.raises(PayloadError) as refused:
        payload_type(Shelf).decode(b'{"stocks":{"a":{"available":true,"leftOver":-1}}}')
    assert refused.value.path == "$.stocks.a.leftOver"


class WithSet(msgspec.Struct):
    tags: set[str]


class ModelWithSet(pydantic.BaseModel):
    tags: list[frozenset[str]] = []


class WithSecret(pydantic.BaseModel):
    password: pydantic.SecretStr


class Alien:
    pass


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (set[int], "h(x)"),
        (set, "h(x)"),
        (frozenset[int] | None, "h(x)"),
        (dict[str, list[set[int]]], "h(x)"),
        (typing.AbstractSet[int], "h(x)"),
        (WithSet, "h(x).tags"),
        (list[ModelWithSet], "h(x).tags"),
        (WithSecret, "h(x).password"),
        (Alien, "h(x)"),
        (list[Alien], "h(x)"),
        (complex, "h(x)"),
        (Line | Order, "h(x)"),
        (Line | Stock, "h(x)"),
        (typing.Callable[[], int], "h(x)"),
    ],
)
def test_a_type_without_a_faithful_form_is_refused_when_defined(annotation: Any, place: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        payload_type(annotation, name="h(x)")
    assert refused.value.code == "HR2031"
    assert refused.value.message.startswith(f"{place}: ")


def test_a_type_is_made_once() -> None:
    assert payload_type(list[Line]) is payload_type(list[Line])


def test_a_size_limit_is_exact_and_says_both_numbers() -> None:
    kind = PayloadType[str](str)
    assert kind.encode("abc", limit_bytes=5) == b'"abc"'
    with pytest.raises(PayloadTooLarge) as refused:
        kind.encode("abcd", limit_bytes=5)
    assert (refused.value.actual_bytes, refused.value.limit_bytes) == (6, 5)
    assert "6 bytes" in str(refused.value)
    assert "5 bytes" in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_plain_json_survives(value: object) -> None:
    kind = payload_type(Any)
    assert kind.decode(kind.encode(value)) == value


@given(
    st.lists(
        st.builds(Line, st.text(), st.integers(), st.none() | st.floats(allow_nan=False, allow_infinity=False), JSON)
    )
)
def test_structs_survive(lines: list[Line]) -> None:
    kind = payload_type(list[Line])
    assert kind.decode(kind.encode(lines)) == lines


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    for annotation in (Any, Stock, Order):
        try:
            payload_type(annotation).decode(raw)
        except PayloadError as refused:
            assert refused.code == "HR7001"  # noqa: PT017 - either is fine


def arguments_of(*annotations: Any, required: int | None = None) -> ArgumentsType:
    names = [f"p{index}" for index in range(len(annotations))]
    types = [payload_type(each) for each in annotations]
    return ArgumentsType(names, types, required=len(types) if required is None else required)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (arguments_of(), ()),
        (arguments_of(Line, int), (LINE, 1)),
        (arguments_of(Stock, int), (Stock(available=True, leftOver=1), 1)),
        (arguments_of(Line, int, required=1), (LINE,)),
        (arguments_of(Line, int, required=1), (LINE, 2)),
    ],
)
def test_arguments_travel_as_one_array(kind: ArgumentsType, values: tuple[object, ...]) -> None:
    raw = kind.encode(values)
    assert isinstance(msgspec.json.decode(raw), list)
    assert kind.decode(raw) == values


def test_each_decoding_makes_its_own_copy() -> None:
    kind = arguments_of(list[int])
    raw = kind.encode(([1],))
    first, second = kind.decode(raw), kind.decode(raw)
    assert first == second
    assert first[0] is not second[0]


@pytest.mark.parametrize("first", [Line, Stock])
def test_a_wrong_argument_is_named(first: Any) -> None:
    kind = arguments_of(first, int)
    good = LINE if first is Line else Stock(available=True, leftOver=1)
    with pytest.raises(PayloadError) as refused:
        kind.encode((good, "1"))
    assert refused.value.path == "p1"
    assert refused.value.code == "HR7002"
    with pytest.raises(PayloadError) as refused:
        kind.decode(b'[{"sku":"a","quantity":1,"available":true,"leftOver":1},"1"]')
    assert refused.value.path == "p1"
    assert refused.value.code == "HR7001"


def test_a_set_in_an_argument_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"p0\.extra: a set"):
        arguments_of(Line).encode((Line("a", 1, extra={1}),))


@pytest.mark.parametrize("values", [(), (LINE, 1, 2)])
def test_the_number_of_arguments_is_checked(values: tuple[object, ...]) -> None:
    for kind in (arguments_of(Line, int), arguments_of(Line, int, required=1)):
        with pytest.raises(TypeError, match="p0, p1"):
            kind.encode(values)
        with pytest.raises(PayloadError):
            kind.decode(msgspec.json.encode(values))


def test_arguments_have_a_limit_too() -> None:
    with pytest.raises(PayloadTooLarge):
        arguments_of(str).encode(("abc",), limit_bytes=6)
