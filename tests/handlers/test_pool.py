from typing import Any

import pytest

from headrace.handlers.pool import Pool, PoolRegistry, PoolSlots, PoolStatistics
from headrace.topics.errors import DefinitionError, Fatal


def test_there_are_as_many_slots_as_its_size() -> None:
    slots = PoolSlots(Pool("p", size=2))
    assert slots.try_acquire()
    assert slots.try_acquire()
    assert slots.is_full()
    assert not slots.try_acquire()
    assert slots.statistics() == PoolStatistics(name="p", size=2, in_use=2)
    slots.release()
    assert slots.try_acquire()


def test_giving_back_what_nobody_has_is_an_error() -> None:
    with pytest.raises(Fatal):
        PoolSlots(Pool("p", size=1)).release()


def test_a_name_is_one_pool() -> None:
    registry = PoolRegistry()
    slots = registry.slots(Pool("p", size=1))
    assert registry.slots(Pool("p", size=1)) is slots
    with pytest.raises(DefinitionError, match=r"size=1.*size=2") as refused:
        registry.slots(Pool("p", size=2))
    assert refused.value.code == "HR2037"
    assert [each.name for each in registry.statistics()] == ["p"]


@pytest.mark.parametrize(("name", "size"), [("", 1), ("a b", 1), (3, 1), ("p", 0), ("p", True), ("p", 1.0), ("p", "1")])
def test_wrong_settings_are_refused(name: Any, size: Any) -> None:
    with pytest.raises(DefinitionError):
        Pool(name, size=size)
