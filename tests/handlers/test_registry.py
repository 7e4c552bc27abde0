import pytest

from headrace.handlers.definition import handler
from headrace.handlers.registry import HandlerRegistry
from headrace.topics.errors import DefinitionError


@handler
async def pay(amount: int) -> None: ...


@handler(name="pay")
async def pay_again(amount: int) -> None: ...


@handler
async def broken(amount: set[int]) -> None: ...


def test_handlers_are_found_by_name() -> None:
    registry = HandlerRegistry([pay])
    registry.add(pay)
    assert registry["pay"] is pay
    assert "pay" in registry
    assert "other" not in registry
    assert list(registry) == [pay]
    assert len(registry) == 1
    with pytest.raises(KeyError):
        registry["other"]


def test_two_of_one_name_are_refused_with_both_places() -> None:
    with pytest.raises(DefinitionError) as refused:
        HandlerRegistry([pay, pay_again])
    assert refused.value.code == "HR2038"
    assert pay.place in refused.value.message
    assert pay_again.place in refused.value.message
    assert pay.place != pay_again.place


def test_a_handler_that_does_not_load_is_not_taken() -> None:
    registry = HandlerRegistry()
    with pytest.raises(DefinitionError):
        registry.add(broken)
    assert len(registry) == 0
