"""`Event`: what a workflow or a filter sees of a source record. `DecodedEvent`: the same before its data has a type.

An event is a CloudEvents 1.0 event and its place in Kafka. `EventMeta` is all of it but the data, in the form the run
log keeps with a start; the data stays the very JSON text of the record (`msgspec.Raw`) until a workflow's input type is
known. Never judges a record: that is `cloudevents.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from headrace.topics.trace_context import TraceContext

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JSON = "application/json"


class Event(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """A decoded CloudEvent and its place in Kafka.

    A record that is not a CloudEvent has the topic's name as `type`, `kafka:{topic}` as `source` and
    `{partition}-{offset}` as `id`. `time` carries the producer's offset from UTC. `key` is the record's key as text,
    `None` if it has none.
    """

    id: str
    source: str
    type: str
    data: T_co
    subject: str | None = None
    time: datetime | None = None
    extensions: Mapping[str, str] = {}
    topic: str = ""
    partition: int = 0
    offset: int = 0
    key: str | None = None


class EventMeta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An event without its data, as start commands keep it. `time` is the producer's text (RFC 3339).

    A media type of `None` is application/json.
    """

    id: str
    source: str
    type: str
    topic: str
    partition: int
    offset: int
    key: str | None = None
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, str] = {}

    def attribute(self, name: str) -> str | None:
        """A CloudEvents attribute or extension by its name, `None` if it is not set.

        This is what a trigger's `attributes` compare with.
        """
        if name in _ATTRIBUTES:
            return getattr(self, name)
        if name == "datacontenttype":
            return self.datacontenttype or JSON
        if name == "specversion":
            return "1.0"
        return self.extensions.get(name)

    def event(self, data: T) -> Event[T]:
        """The public event around data that has its type already."""
        return Event(
            id=self.id,
            source=self.source,
            type=self.type,
            data=data,
            subject=self.subject,
            time=None if self.time is None else parse_time(self.time),
            extensions=self.extensions,
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            key=self.key,
        )


_ATTRIBUTES = frozenset({"id", "source", "type", "subject", "time", "dataschema"})


class DecodedEvent(msgspec.Struct, frozen=True, gc=False):
    """A source record that was accepted.

    `data` is valid JSON within the limits; `trace` is the producer's context, if it sent a sound one.
    `trace_refused`: it sent a context or a state that is not. `redriven`: it has the header of records that come from the dead letters (`redrive.py`).
    """

    meta: EventMeta
    data: msgspec.Raw
    trace: TraceContext | None = None
    trace_refused: bool = False
    redriven: bool = False

    def typed(self, decode: Callable[[msgspec.Raw], T]) -> Event[T]:
        """The event with its data as `decode` reads it; what `decode` raises goes through.

        Each call makes its own copy of the data.
        """
        return self.meta.event(decode(self.data))

    def plain(self) -> Event[Any]:
        """The event with plain JSON data (dict, list, str, int, float, bool, None): for filters."""
        return self.meta.event(msgspec.json.decode(self.data))


_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_MICROS_LENGTH = len("2026-11-21T10:45:00.123456Z")


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as an aware datetime. Digits past the microsecond are dropped; :60 is the second after :59.

    Raises ValueError or OverflowError if `text` is no such time, or one that a datetime cannot hold.
    """
    if text[-1:] == "Z" and text[10:11] == "T" and len(text) <= _MICROS_LENGTH:
        try:  # what nearly everyone sends, in half the time; msgspec alone takes looser forms, too
            return _in_range(msgspec.convert(text, datetime))
        except msgspec.ValidationError:
            pass  # a leap second, or no time
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    seconds, fraction, zone = match.groups()
    micros = "000000" if fraction is None else f"{fraction[1:7]:0<6}"
    leap = seconds == "60"
    whole = f"{text[:10]}T{text[11:17]}{'59' if leap else seconds}.{micros}"
    moment = datetime.fromisoformat(whole + ("+00:00" if zone in "Zz" else zone))
    if leap:
        moment += timedelta(seconds=1)
    return _in_range(moment)


def _in_range(moment: datetime) -> datetime:
    if not 1 < moment.year < 9999:
        moment.astimezone(UTC)  # refuses here what would overflow in a comparison later
    return moment


def format_time(timestamp_ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC: `2026-11-21T10:45:00.123Z`.

    Raises ValueError or OverflowError outside of years 1 to 9999.
    """
    return f"{_second(timestamp_ms // 1000)}.{timestamp_ms % 1000:03d}Z"


@lru_cache(maxsize=16)  # outputs of the same second follow each other
def _second(timestamp_s: int) -> str:
    return datetime.fromtimestamp(timestamp_s, UTC).isoformat()[:19]
