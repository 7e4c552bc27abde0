"""CloudEvents 1.0 on Kafka, the way out: what a run emits, and what a producer of ours publishes.

The same arguments give the same bytes, for ever: a repeated output must be the one that a reader has seen. Called by
the outbox (`encode_output`) and by `event publish` and feeds (`encode_event`).
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from headrace.topics.cloudevents import STRING_ATTRIBUTES, check_characters, decode
from headrace.topics.event import JSON, format_time
from headrace.topics.event_data import (
    ATTRIBUTE_TWICE,
    DEFAULT_LIMITS,
    STRUCTURED,
    DataForm,
    EventLimits,
    EventRejected,
    data_form,
    read_data,
)
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.trace_context import TraceContext

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event to be written. `data` is its value: JSON text, unless `datacontenttype` is a text/* type.

    `time_ms` is since the epoch. `key` is the record's key; an empty one, like an empty `subject`, is none.
    """

    id: str
    source: str
    type: str
    data: bytes
    subject: str | None = None
    time_ms: int | None = None
    key: str | None = None
    datacontenttype: str = JSON
    extensions: dict[str, str] = {}


class Provenance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which run made an output. `source` is the record that started it, as `topic/partition/offset`.

    `trace` is the span that the reader is to continue; `correlation_id` is for requests that want an answer.
    """

    run_id: str
    workflow: str
    source: str | None = None
    trace: TraceContext | None = None
    correlation_id: str | None = None


def encode_output(event: NewEvent, provenance: Provenance) -> NewRecord:
    """A result record: binary mode, and the headers that lead back to its run. Takes 4 us.

    Never fails for what a run may emit: control characters in attributes are written as `header_text` says.
    """
    headers = _binary_headers(event)
    if provenance.trace is not None:
        headers += _trace_headers(provenance.trace)
    headers.append(("headrace-run-id", header_text(provenance.run_id)))
    headers.append(("headrace-workflow", header_text(provenance.workflow)))
    if provenance.source is not None:
        headers.append(("headrace-source", header_text(provenance.source)))
    if provenance.correlation_id is not None:
        headers.append(("headrace-correlation-id", header_text(provenance.correlation_id)))
    return NewRecord(value=event.data, key=_key_bytes(event.key), headers=tuple(headers))


def encode_event(
    event: NewEvent,
    *,
    mode: Literal["binary", "structured"] = "binary",
    trace: TraceContext | None = None,
    limits: EventLimits = DEFAULT_LIMITS,
) -> NewRecord:
    """A record for a source topic, as a producer would write it.

    Raises `EventRejected` where `decode` would refuse the record.
    """
    _judge(event, limits)
    if mode == "structured":
        headers = [("content-type", f"{STRUCTURED}; charset=UTF-8".encode())]
        value = _structured_body(event)
    else:
        headers = _binary_headers(event)
        value = event.data
    if trace is not None:
        headers += _trace_headers(trace)
    record = NewRecord(value=value, key=_key_bytes(event.key), headers=tuple(headers))
    decode(LogRecord(0, 0, record.key, record.value, record.headers), TopicPartition("topic", 0), limits)
    return record


def header_text(text: str) -> bytes:
    """Text as a header value. Control characters, which no attribute may have, are percent-encoded.

    Lone surrogates become `?`.
    """
    if text.isascii() and text.isprintable():
        return text.encode("ascii")
    return _CONTROL.sub(_percent, text).encode("utf-8", "replace")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _judge(event: NewEvent, limits: EventLimits) -> None:
    """Refuse what the encoded record would no longer show."""
    for name in event.extensions:
        if name in STRING_ATTRIBUTES or name in {"data", "data_base64"}:
            raise EventRejected(ATTRIBUTE_TWICE, "an extension may not have the name of an attribute.", name)
    check_characters({"id": event.id, "source": event.source, "type": event.type, "subject": event.subject or ""})
    check_characters(event.extensions)
    read_data(event.data, data_form(event.datacontenttype), limits)


def _binary_headers(event: NewEvent) -> list[tuple[str, bytes]]:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", header_text(event.id)),
        ("ce_source", header_text(event.source)),
        ("ce_type", header_text(event.type)),
    ]
    if event.subject:
        headers.append(("ce_subject", header_text(event.subject)))
    if event.time_ms is not None:
        headers.append(("ce_time", format_time(event.time_ms).encode()))
    if event.extensions:
        headers.extend(("ce_" + name, header_text(value)) for name, value in event.extensions.items())
    headers.append(("content-type", header_text(event.datacontenttype)))
    return headers


def _trace_headers(trace: TraceContext) -> list[tuple[str, bytes]]:
    parent = ("traceparent", trace.traceparent.encode())
    return [parent, ("tracestate", header_text(trace.state))] if trace.state else [parent]


def _structured_body(event: NewEvent) -> bytes:
    body: dict[str, object] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
    if event.subject:
        body["subject"] = event.subject
    if event.time_ms is not None:
        body["time"] = format_time(event.time_ms)
    body["datacontenttype"] = event.datacontenttype
    body.update(event.extensions)
    is_text = data_form(event.datacontenttype) is DataForm.TEXT
    body["data"] = event.data.decode() if is_text else msgspec.Raw(event.data)
    return msgspec.json.encode(body)


def _key_bytes(key: str | None) -> bytes | None:
    return key.encode("utf-8", "replace") if key else None
