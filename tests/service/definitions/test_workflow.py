from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError, dataclass
from datetime import timedelta
from typing import Any

import pytest

from headrace.handlers.payload import PayloadError
from headrace.service.definitions.trigger import EventTrigger
from headrace.service.definitions.workflow import Workflow, workflow
from headrace.service.engine.run import Run
from headrace.topics.command import OnConflict
from headrace.topics.errors import DefinitionError


async def fulfil(run: Run, order: "Order") -> list["Order"]:
    """Fulfil an order."""
    return [order]


@dataclass
class Order:
    id: str
    total: float = 0


def test_a_workflow_is_what_its_decorator_says() -> None:
    trigger = EventTrigger("orders")
    made = workflow(
        on=trigger,
        key=lambda order: order.id,
        name="shop.fulfil",
        namespace="shop",
        version="2.1",
        timeout="1h",
        emits=["done"],
    )(fulfil)
    assert made.id == ("shop", "shop.fulfil", "2.1")
    assert made.triggers == (trigger,)
    assert made.on_conflict is OnConflict.QUEUE
    assert (made.timeout_ms, made.emits) == (3_600_000, ("done",))
    assert made.description == "Fulfil an order."
    assert str(made.place).endswith(f"test_workflow.py:{fulfil.__code__.co_firstlineno}")


def test_the_defaults() -> None:
    made = workflow()(fulfil)
    assert made.id == ("default", "fulfil", "1")
    assert (made.triggers, made.key, made.timeout_ms, made.emits) == ((), None, None, ())
    assert made.on_conflict is OnConflict.ALLOW


def test_a_workflow_does_not_change() -> None:
    made = workflow()(fulfil)
    with pytest.raises(FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]


def test_input_and_result_travel_by_their_annotations() -> None:
    made = workflow()(fulfil)
    assert made.input_type.decode(b'{"id":"o-1","total":3}') == Order("o-1", 3.0)
    assert made.encode_result([Order("o-1")]) == b'[{"id":"o-1","total":0}]'
    with pytest.raises(PayloadError):
        made.encode_result([{"id": "o-1"}])
    with pytest.raises(PayloadError):
        made.begin(None, b"[]")  # type: ignore[arg-type]


def test_begin_makes_the_coroutine() -> None:
    coroutine = workflow()(fulfil).begin(None, b'{"id":"o-1"}')  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == [Order("o-1")]


def test_without_annotations_payloads_are_plain_json() -> None:
    async def bare(run, order):  # noqa: ANN001, ANN202 - the point
        return order

    assert workflow()(bare).input_type.decode(b'{"a":[1]}') == {"a": [1]}


def test_an_annotation_may_come_from_an_enclosing_function() -> None:
    @dataclass
    class Local:
        id: str

    async def local(run: "OnlyForTypeCheckers", order: "Local") -> None:  # type: ignore[name-defined]  # noqa: F821
        Local("used, so that it is in the closure")

    assert workflow()(local).input_type.decode(b'{"id":"o-1"}') == Local("o-1")


def test_an_annotation_that_cannot_be_resolved_is_named_when_asked_for() -> None:
    async def astray(run: Run, order: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    made = workflow()(astray)
    with pytest.raises(
        DefinitionError, match=r"test_workflow\.py:\d+: .*'Nowhere' of the parameter 'order' of astray"
    ) as caught:
        _ = made.input_type
    assert caught.value.code == "HR2012"


def test_a_type_that_is_no_payload_is_refused_with_its_place() -> None:
    async def unordered(run: Run, order: set[str]) -> None: ...

    with pytest.raises(DefinitionError, match=r"test_workflow\.py:\d+: unordered\(order\)"):
        _ = workflow()(unordered).input_type


def plain(run: Run, order: Order) -> None: ...
async def stream(run: Run, order: Order) -> AsyncIterator[int]:
    yield 1


async def alone(run: Run) -> None: ...
async def three(run: Run, order: Order, more: int) -> None: ...
async def keyword(run: Run, *, order: Order) -> None: ...
async def many(*args: object) -> None: ...


@pytest.mark.parametrize("function", [plain, stream, alone, three, keyword, many, Order, workflow()(fulfil), 3])
def test_only_an_async_function_of_a_run_and_an_input_is_a_workflow(function: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        workflow()(function)
    assert caught.value.code == "HR2011"
    assert "async def" in caught.value.do


async def async_key(order: object) -> str:
    return ""


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": "with space"}, "HR2010"),
        ({"name": ""}, "HR2010"),
        ({"name": "naïve"}, "HR2010"),
        ({"name": "x" * 101}, "HR2010"),
        ({"namespace": "a/b"}, "HR2010"),
        ({"version": 2}, "HR2010"),
        ({"version": "v 2"}, "HR2010"),
        ({"on": "orders"}, "HR2013"),
        ({"on": [EventTrigger("orders"), "payments"]}, "HR2013"),
        ({"on": None}, "HR2013"),
        ({"on_conflict": "replace", "key": str}, "HR2014"),
        ({"on_conflict": "reject"}, "HR2014"),
        ({"on_conflict": "join"}, "HR2014"),
        ({"key": "order.id"}, "HR2014"),
        ({"key": async_key}, "HR2014"),
        ({"timeout": "5"}, "HR2030"),
        ({"timeout": 5}, "HR2030"),
        ({"timeout": timedelta(0)}, "HR2030"),
        ({"emits": 3}, "HR2015"),
        ({"emits": ["a b"]}, "HR2015"),
        ({"emits": [None]}, "HR2015"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_the_place(options: dict[str, Any], code: str) -> None:
    with pytest.raises(DefinitionError, match=r"test_workflow\.py:\d+: ") as caught:
        workflow(**options)(fulfil)
    assert caught.value.code == code
    assert caught.value.do


def test_a_single_topic_needs_no_list() -> None:
    assert workflow(emits="done")(fulfil).emits == ("done",)


@pytest.mark.parametrize("policy", ["allow", "reject", "join", "queue"])
def test_every_policy_goes_with_a_key(policy: Any) -> None:
    assert workflow(key=str, on_conflict=policy)(fulfil).on_conflict == policy


def test_the_code_hash_follows_the_source() -> None:
    async def one(run: Run, order: object) -> int:
        return 1

    async def two(run: Run, order: object) -> int:
        return 2

    hashes = {workflow()(one).code_hash, workflow()(one).code_hash, workflow()(two).code_hash}
    assert len(hashes) == 2
    assert all(len(each) == 12 for each in hashes)


def test_the_code_hash_does_without_source() -> None:
    names: dict[str, Any] = {}
    for result in (1, 2):
        exec(f"async def made(run, order):\n    return [each + {result} for each in order]", names)
        names[f"workflow{result}"] = workflow()(names["made"])
    assert names["workflow1"].code_hash != names["workflow2"].code_hash


def test_a_workflow_shows_its_place() -> None:
    made: Workflow[Order, list[Order]] = workflow()(fulfil)
    assert "default/fulfil version 1 at " in repr(made)
