"""A mark: what somebody did about dead letters. Marks of all dead-letter topics of an app lie in `<app>.dlq`, beside its refused outputs.

They could not lie in the audit topic: it may hold a hundred million entries, and marks are read by everybody who wants to know which letters are open. Nor
beside the letters: what counts the open ones would have to read all that comes there.

A mark has the header `headrace-dlq-mark` with its kind, and its facts as JSON. Released meanings never change: add a kind, do not alter one.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from headrace.topics.log import LogRecord, NewRecord

HEADER = "headrace-dlq-mark"


class MarkKind(StrEnum):
    """What was done."""

    REDRIVING = "redriving"  # about to be sent to its topic; whether it was is said by the next one
    REDRIVEN = "redriven"  # it lies there
    REFUSED = "refused"  # its topic has not taken it
    RESOLVED = "resolved"  # it needs nothing more: it may be deleted


class LetterMark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dead letters `first` to `last` of a partition, both in it. `count` is the redrive's; `by` and `note` are for people."""

    kind: str  # a `MarkKind` when it is written; a later version may have more of them
    topic: str
    partition: int
    first: int
    last: int
    count: int = 0
    by: str = ""
    note: str = ""


_decoder = msgspec.json.Decoder(LetterMark)


def mark_record(mark: LetterMark) -> NewRecord:
    """The record of a mark."""
    return NewRecord(
        value=msgspec.json.encode(mark),
        key=f"{mark.topic}/{mark.partition}".encode(),
        headers=((HEADER, mark.kind.encode()), ("content-type", b"application/json")),
    )


def parse_mark(record: LogRecord) -> LetterMark | None:
    """Read a mark; None: it is none."""
    if record.value is None or not any(name == HEADER for name, _ in record.headers):
        return None
    try:
        mark = _decoder.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return mark if 0 <= mark.first <= mark.last else None
