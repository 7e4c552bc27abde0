"""`EventTrigger`: which events start a workflow.

A trigger is a value: it is judged when it is made and does nothing by itself. `matcher.py` compiles the triggers of an app.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from typing import Any, cast

from headrace.service.definitions.definition_code import TRIGGER_INVALID
from headrace.topics.errors import DefinitionError
from headrace.topics.event import Event

TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
"""Kafka's rule; `.` and `..` are refused besides."""
_ATTRIBUTE = re.compile(r"[a-z0-9]+", re.ASCII)  # CloudEvents 1.0, naming conventions
_NOT_COMPARED = {
    "type": "Give it as EventTrigger(topic, type).",
    "time": "Compare event.time in a filter.",
    "data": "Look at event.data in a filter.",
    "specversion": "It is always 1.0.",
}


@dataclass(frozen=True, eq=False, slots=True)
class EventTrigger:
    """All that is given must hold: topic, type, attributes (equality), `filter`. A filter that raises dead-letters the record.

    `attributes` are CloudEvents attributes or extensions by their names, such as `{"source": "web"}`. `filter` takes the event with its data as plain
    JSON types, is called in the router and must be quick. Raises DefinitionError for what can never match.
    """

    topic: str
    type: str | None = None
    _: KW_ONLY
    attributes: Mapping[str, str] | None = None
    filter: Callable[[Event[Any]], bool] | None = None

    def __post_init__(self) -> None:
        topic = cast("object", self.topic)
        if not isinstance(topic, str) or not TOPIC_NAME.fullmatch(topic) or topic in {".", ".."}:
            raise _refused(
                f"{topic!r} is no topic name.", "Topic names have 1 to 249 letters, digits, '.', '_' or '-'."
            )
        type_ = cast("object", self.type)
        if type_ is not None and (not isinstance(type_, str) or not type_):
            raise _refused(
                f"{type_!r} is no event type.", "Give the CloudEvents type as text, or leave it out to take every type."
            )
        if self.attributes is not None:
            object.__setattr__(self, "attributes", MappingProxyType(_checked_attributes(self.attributes)))
        if self.filter is not None:
            _check_filter(self.filter)


def _checked_attributes(attributes: object) -> dict[str, str]:
    if not isinstance(attributes, Mapping):
        raise _refused(f"attributes={attributes!r} is no mapping.", 'Write it as {"source": "web"}.')
    checked: dict[str, str] = {}
    for name, value in attributes.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
            raise _refused(
                f"{name!r} is no CloudEvents attribute.", "Attribute names have lower-case letters and digits only."
            )
        if name in _NOT_COMPARED:
            raise _refused(f"The attribute {name!r} cannot be compared here.", _NOT_COMPARED[name])
        if not isinstance(value, str):
            raise _refused(
                f"The attribute {name!r} is compared with {value!r}, which is not text.",
                "Attributes are text on the wire.",
            )
        checked[name] = value
    return checked


def _check_filter(function: object) -> None:
    if not callable(function):
        raise _refused(
            f"filter={function!r} cannot be called.",
            "Give a function of the event: lambda event: event.data['total'] > 100.",
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _refused(
            "The filter is an async function.", "A filter looks at the event and answers at once: write it with `def`."
        )


def _refused(message: str, do: str) -> DefinitionError:
    return DefinitionError(message, code=TRIGGER_INVALID, do=do)
