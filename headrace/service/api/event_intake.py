"""CloudEvents over HTTP: requests in binary, structured and batched mode (and plain JSON) become source records, as a producer would write them.

What an event of each mode is, is `topics/cloudevents.py`'s to judge: it decodes the record before it is published, so that nothing goes to the dead letters
that could be said here. https://github.com/cloudevents/spec (HTTP protocol binding 1.0)
"""

from __future__ import annotations

import itertools
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

from headrace.service.api.asked_values import check_brackets, invalid_body
from headrace.service.api.batch_split import NotAnArray, TooManyItems, items_of
from headrace.service.api.problem import MEDIA_TYPE_UNKNOWN, TOPIC_REFUSED, ApiError, Problem, problem_of
from headrace.service.loop_turn import in_turns
from headrace.topics.cloudevents import decode
from headrace.topics.errors import HeadraceError
from headrace.topics.event_data import STRUCTURED, DataForm, data_form
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.partition_hash import kafka_partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.api.facade import Facade
    from headrace.service.api.route import Asked
    from headrace.topics.event import DecodedEvent

_TRACE_HEADERS = ("traceparent", "tracestate")
EVENTS_MAX = 10_000
"""Of one batch."""
_NAMED_MAX = 20
_turns = itertools.count()


class PublishedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event, in the order of the request: where it lies, or why it does not."""

    id: str | None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    error: Problem | None = None


class PublishedEvents(msgspec.Struct, frozen=True, kw_only=True):
    """All events of a request."""

    items: tuple[PublishedEvent, ...]


class _Judged(msgspec.Struct):
    """An event on its way: `error` once it cannot be published."""

    id: str | None = None
    topic: str = ""
    record: NewRecord | None = None
    partition: int = 0
    offset: int = -1
    error: HeadraceError | None = None


async def publish(facade: Facade, asked: Asked) -> PublishedEvents:
    """Publish the events of a request. HeadraceError: what is wrong with the only one, or with the first if none was published."""
    topic, key = asked.query.get("topic"), asked.query.get("key")
    judged = [_judged(facade, record, topic) async for record in in_turns(await _records(asked, key))]
    await _published(facade, judged)
    if all(one.error is not None for one in judged):
        first = judged[0].error
        assert first is not None  # noqa: S101 - all have one
        raise first
    return PublishedEvents(items=tuple([_answer(one, asked.request.path) async for one in in_turns(judged)]))


async def _records(asked: Asked, key: str | None) -> list[NewRecord]:
    """A record for each event, not judged yet."""
    content_type = asked.headers.get("Content-Type", "")
    key_bytes = None if key is None else key.encode("utf-8", "surrogateescape")
    trace = tuple(
        (name, asked.headers[name].encode("utf-8", "replace")) for name in _TRACE_HEADERS if name in asked.headers
    )
    form = data_form(content_type) if content_type else DataForm.REFUSED
    attributes = [name for name in asked.headers if name.lower().startswith("ce-")]
    if form is DataForm.STRUCTURED:
        return [NewRecord(asked.body, key_bytes, (("content-type", content_type.encode("latin-1")), *trace))]
    if form is DataForm.BATCH:
        return [
            NewRecord(one, key_bytes, (("content-type", STRUCTURED.encode()), *trace))
            for one in await _batch(asked.body)
        ]
    if attributes:
        headers = [
            ("ce_" + name[3:].lower(), unquote_to_bytes(asked.headers[name].encode("utf-8", "surrogateescape")))
            for name in attributes
        ]
        if content_type:
            headers.append(("content-type", content_type.encode("utf-8", "replace")))
        return [NewRecord(asked.body, key_bytes, (*headers, *trace))]
    if form is DataForm.JSON:
        return [NewRecord(asked.body, key_bytes, (("content-type", b"application/json"), *trace))]
    raise ApiError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        MEDIA_TYPE_UNKNOWN,
        "The request is no CloudEvent and no JSON.",
        do="Send application/cloudevents+json, application/cloudevents-batch+json, ce-* headers, or plain application/json.",
    )


async def _batch(body: bytes) -> Sequence[bytes]:
    try:
        events = await items_of(body, EVENTS_MAX)
    except NotAnArray:
        raise invalid_body("a batch is a JSON array of events.") from None
    except TooManyItems:
        raise invalid_body(f"the batch has more than {EVENTS_MAX} events.") from None
    if not events:
        raise invalid_body("the batch is empty.")
    return events


def _judged(facade: Facade, record: NewRecord, topic: str | None) -> _Judged:
    judged = _Judged()
    try:
        check_brackets(record.value or b"")
        as_read = LogRecord(0, 0, record.key, record.value, record.headers)
        event = decode(as_read, TopicPartition(topic or "", 0), facade.shared.event_limits)
        judged.id = None if _is_plain(record) else event.meta.id
        judged.topic = topic or _topic_of(facade, event)
        _check_topic(facade, judged.topic)
        key = event.meta.extensions.get("partitionkey")
        if record.key is None and key:
            record = msgspec.structs.replace(record, key=key.encode())
        judged.record = record
    except HeadraceError as error:
        judged.error = error
    return judged


def _is_plain(record: NewRecord) -> bool:
    """No CloudEvent: its id will be its place."""
    return not any(
        name.startswith("ce_") or (name == "content-type" and b"cloudevents" in value) for name, value in record.headers
    )


def _topic_of(facade: Facade, event: DecodedEvent) -> str:
    """Where the app waits for events of this type, if that is one topic; else the app's own."""
    topics = facade.shared.app.topics_by_type.get(event.meta.type, frozenset())
    return next(iter(topics)) if len(topics) == 1 else facade.default_topic


def _check_topic(facade: Facade, topic: str) -> None:
    """Only topics that this app reads: the API is no way into others."""
    sources = facade.shared.app.source_topics
    if topic in sources:
        return
    raise ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        TOPIC_REFUSED,
        f"{topic:.250} is no source topic of this app." if topic else "No topic is given.",
        why="Events go to topics that a trigger names: to the one of ?topic=; else to the only one that waits for their type; "
        f"else to {facade.default_topic}.",
        do=f"Give ?topic=, one of: {_some(sources) or 'none, no trigger names one'}.",
    )


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more


async def _published(facade: Facade, judged: Sequence[_Judged]) -> None:
    """Each partition's share in order; what one partition refuses leaves the others alone."""
    log = facade.shared.log
    shares: dict[TopicPartition, list[_Judged]] = {}
    for one in judged:
        if one.error is not None or one.record is None:
            continue
        try:
            count = await log.partitions(one.topic)
        except HeadraceError as error:
            one.error = error
            continue
        key = one.record.key
        one.partition = next(_turns) % count if key is None else kafka_partition_of(key, count)
        shares.setdefault(TopicPartition(one.topic, one.partition), []).append(one)
    for at, share in shares.items():
        try:
            appended = await log.publish(at, [one.record for one in share if one.record is not None])
        except HeadraceError as error:
            for one in share:
                one.error = error
        else:
            for place, one in enumerate(share):
                one.offset = appended.base_offset + place


def _answer(one: _Judged, path: str) -> PublishedEvent:
    if one.error is not None:
        return PublishedEvent(id=one.id, error=problem_of(one.error, path))
    id_ = one.id if one.id is not None else f"{one.partition}-{one.offset}"
    return PublishedEvent(id=id_, topic=one.topic, partition=one.partition, offset=one.offset)
