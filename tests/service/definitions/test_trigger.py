import pytest

from headrace.service.definitions.trigger import EventTrigger
from headrace.topics.errors import DefinitionError


def test_a_trigger_keeps_what_it_is_given() -> None:
    given = {"source": "web"}
    trigger = EventTrigger("orders", "placed", attributes=given, filter=bool)
    given["source"] = "changed later"
    assert (trigger.topic, trigger.type, dict(trigger.attributes or {})) == ("orders", "placed", {"source": "web"})


def test_a_trigger_does_not_change() -> None:
    trigger = EventTrigger("orders")
    with pytest.raises(AttributeError):
        trigger.topic = "others"  # type: ignore[misc]


async def async_filter(event: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"topic": ""}, "topic name"),
        ({"topic": "a b"}, "topic name"),
        ({"topic": ".."}, "topic name"),
        ({"topic": "x" * 250}, "topic name"),
        ({"topic": None}, "topic name"),
        ({"topic": "orders", "type": ""}, "event type"),
        ({"topic": "orders", "type": 3}, "event type"),
        ({"topic": "orders", "attributes": ["source"]}, "mapping"),
        ({"topic": "orders", "attributes": {"Source": "web"}}, "CloudEvents attribute"),
        ({"topic": "orders", "attributes": {"tenant": 3}}, "not text"),
        ({"topic": "orders", "attributes": {"type": "placed"}}, "cannot be compared"),
        ({"topic": "orders", "attributes": {"time": "now"}}, "cannot be compared"),
        ({"topic": "orders", "filter": "event.data.total > 3"}, "cannot be called"),
        ({"topic": "orders", "filter": async_filter}, "async"),
    ],
)
def test_what_can_never_match_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:
        EventTrigger(**arguments)  # type: ignore[arg-type]
    assert caught.value.code == "HR2013"
    assert caught.value.do
