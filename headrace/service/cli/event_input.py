"""The source records that a command line describes: for `event publish`, which writes them, and `event match`, which
only asks.

Without any CloudEvents option the record is plain JSON. With one it is a CloudEvent in binary mode; what is not
given is filled in: the topic's name as type, a new id. A line of `--data -` that is a whole CloudEvent in JSON (it
has `specversion`) keeps its own attributes.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import uuid_utils
from cyclopts import Parameter

from headrace.service.cli.exit_code import NotFound, Usage
from headrace.service.settings import Settings
from headrace.topics.cloudevents import decode
from headrace.topics.event_data import STRUCTURED, EventLimits, EventRejected
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.new_event import NewEvent, encode_event

SOURCE = "headrace-cli"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EventInput:
    """Options that describe records."""

    data: Annotated[
        str | None,
        Parameter(help="JSON; @FILE; or - for many, one a line of stdin.", allow_leading_hyphen=True),
    ] = None
    key: Annotated[str | None, Parameter(help="The record's key.")] = None
    key_from: Annotated[str | None, Parameter(help="Take the key from this field of the data, as in order.id.")] = None
    type: Annotated[str | None, Parameter(help="CloudEvents type.")] = None
    source: Annotated[str | None, Parameter(help="CloudEvents source.")] = None
    id: Annotated[str | None, Parameter(help="CloudEvents id; else a new one.")] = None
    subject: Annotated[str | None, Parameter(help="CloudEvents subject.")] = None
    header: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--header", "-H"), help="A header, as name=value; repeatable.", negative="", show_default=False
        ),
    ] = ()
    structured: Annotated[bool, Parameter(help="CloudEvents in structured mode.", negative="")] = False
    plain: Annotated[bool, Parameter(help="Plain JSON, no CloudEvent.", negative="")] = False
    unchecked: Annotated[bool, Parameter(help="Send as it is, even if Headrace would refuse it.", negative="")] = False

    def records(self, topic: str, settings: Settings) -> Iterator[NewRecord]:
        """The records, read and made one by one. `Usage` for data that cannot be."""
        limits = event_limits(settings)
        headers = tuple(self._headers())
        for place, data in self._texts():
            try:
                record = self._record(topic, data, limits)
                record = msgspec.structs.replace(record, headers=record.headers + headers)
                if not self.unchecked:
                    decode(LogRecord(0, 0, record.key, record.value, record.headers), TopicPartition(topic, 0), limits)
            except EventRejected as error:
                raise Usage(
                    place + error.message,
                    code=error.code,
                    why="Headrace would send this record to the dead letters.",
                    do="Mend it, or send it as it is with --unchecked.",
                ) from None
            except Usage as error:
                raise Usage(place + error.message, code=error.code, why=error.why, do=error.do) from None
            yield record

    def judge(self) -> None:
        """Raise `Usage` for options that cannot be, before anything is opened."""
        if self.data is None:
            raise Usage("--data is missing.", do="Give JSON, @FILE, or - to read one event a line from stdin.")
        named = [name for name in ("type", "source", "id", "subject") if getattr(self, name) is not None]
        if self.plain and (named or self.structured):
            message = f"--plain excludes --{named[0] if named else 'structured'}: plain JSON has no attributes."
            raise Usage(message, do="Leave one of them out.")
        if self.key is not None and self.key_from is not None:
            raise Usage("--key and --key-from exclude each other.", do="Leave one of them out.")
        if self.data == "-" and self.id is not None:
            raise Usage(
                "--id would give all lines of stdin the same id.",
                do="Leave it out, or write whole CloudEvents, each with its id.",
            )

    @property
    def _is_plain(self) -> bool:
        attributes = (self.type, self.source, self.id, self.subject)
        return self.plain or (not self.structured and all(value is None for value in attributes))

    def _texts(self) -> Iterator[tuple[str, bytes]]:
        """Each text, with the words that say which of many it is."""
        assert self.data is not None  # noqa: S101 - judged
        if self.data == "-":
            for number, line in enumerate(sys.stdin.buffer, start=1):
                if line.strip():
                    yield f"Line {number} of stdin: ", line
        elif self.data.startswith("@"):
            try:
                yield "", Path(self.data[1:]).read_bytes()
            except OSError as error:
                do = "Correct the path after the @, or its permissions."
                raise NotFound(f"{self.data[1:]} cannot be read: {error.strerror}.", do=do) from None
        else:
            yield "", self.data.encode("utf-8", "surrogateescape")

    def _headers(self) -> Iterator[tuple[str, bytes]]:
        for header in self.header:
            name, equals, value = header.partition("=")
            if not equals or not name:
                raise Usage(f"--header {header} has no value.", do="Write --header name=value.")
            yield name, value.encode("utf-8", "surrogateescape")

    def _record(self, topic: str, data: bytes, limits: EventLimits) -> NewRecord:
        whole = _cloud_event(data) if self.data == "-" and not self.plain else None
        key = self._key(cast("dict[str, object]", whole["data"]) if whole and "data" in whole else data)
        if whole is not None:
            return NewRecord(data.strip(), key, (("content-type", STRUCTURED.encode()),))
        if self._is_plain:
            return NewRecord(data.rstrip(b"\n"), key, (("content-type", b"application/json"),))
        event = NewEvent(
            id=str(uuid_utils.uuid7()) if self.id is None else self.id,
            source=SOURCE if self.source is None else self.source,
            type=topic if self.type is None else self.type,
            subject=self.subject,
            time_ms=time.time_ns() // 1_000_000,
            key=None if key is None else key.decode(),
            data=data.rstrip(b"\n"),
        )
        return encode_event(event, mode="structured" if self.structured else "binary", limits=limits)

    def _key(self, data: bytes | dict[str, object]) -> bytes | None:
        if self.key_from is None:
            return None if self.key is None else self.key.encode("utf-8", "surrogateescape")
        try:
            found: Any = msgspec.json.decode(data) if isinstance(data, bytes) else data
            for name in self.key_from.split("."):
                found = found[name]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            do = "Name a field that it has, or give --key."
            raise Usage(f"--key-from {self.key_from}: the data has no such field.", do=do) from None
        if not isinstance(found, str | int) or isinstance(found, bool):
            do = "Name a field that is, or give --key."
            raise Usage(f"--key-from {self.key_from}: the field is neither text nor a whole number.", do=do)
        return str(found).encode()


def event_limits(settings: Settings) -> EventLimits:
    """What one event may be, by the settings."""
    return EventLimits(
        payload_bytes_max=settings.limits.payload_bytes,
        headers_bytes_max=settings.limits.headers_bytes,
        nesting_max=settings.limits.nesting,
    )


def _cloud_event(line: bytes) -> dict[str, object] | None:
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) and "specversion" in found else None
