"""Dead letters: a record that can never work, kept as it came, with what is known about why.

A dead letter has the original key, value and headers byte for byte, then our `headrace-dlq-*` headers, the first of
them `headrace-dlq-stage`: what stands before the last header of that name is the original, even if the original was a
dead letter itself. Headers are text; the error is one line, at most 1 000 bytes, and never an excerpt of the payload.
Called by the router and the outbox; read back by the CLI.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256

import msgspec

from headrace.topics.log import LogRecord, NewRecord, TopicPartition, Unreadable

ERROR_BYTES_MAX = 1_000
SOURCE_MARGIN_BYTES = 65_536  # a dead-letter topic allows its source's record size plus this
PREFIX = "headrace-dlq-"

_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

Headers = tuple[tuple[str, bytes], ...]


class Stage(StrEnum):
    """How far a record came. A closed set: fit for a metric label."""

    DECODE = "decode"
    MATCH = "match"
    START = "start"
    EMIT = "emit"


class Kept(StrEnum):
    """How much of the original a dead letter holds: all, all but the value, or nothing but coordinates."""

    ALL = "all"
    NO_VALUE = "no-value"
    COORDINATES = "coordinates"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter read back.

    `key`, `value` and `headers` are the original's, as far as `kept` says; offsets and time are `None` for a refused
    output.
    `last_offset` is `offset`, except for a batch that could not be unpacked: such a letter stands for all its records.
    `value_sha256` (lower-case hex) and `value_bytes` describe a value that was too large to keep.
    """

    stage: Stage
    code: str
    error: str
    topic: str
    partition: int
    offset: int | None
    last_offset: int | None
    timestamp_ms: int | None
    attempts: int
    workflow: str | None
    app: str | None  # whose letter it is, by `app.name`: apps that read the same topic share its dead letters
    kept: Kept
    value_sha256: str | None
    value_bytes: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


def dead_letter_topic(source: str) -> str:
    """The topic that holds the dead letters of a source topic."""
    return f"{source}.dlq"


def dead_letter(
    record: LogRecord | NewRecord | Unreadable,
    at: TopicPartition,
    *,
    stage: Stage,
    code: str,
    error: str,
    attempts: int,
    workflow: str | None = None,
    app: str | None = None,
    bytes_max: int | None = None,
) -> NewRecord:
    """Make the dead letter of a source record, an unreadable batch, or a refused output (a `NewRecord`, stage `emit`).

    `at` is where the record lies, or where the output should have gone. `error` says what is wrong without quoting the
    payload; it is made one line and cut. `attempts` counts the tries, from 1. `bytes_max` is the most that the
    dead-letter topic takes, in bytes of key, value and headers: a record beyond it goes without its value, and if that
    is not enough without key and headers too. `None` is no limit.
    """
    facts = _facts(record, at, stage=stage, code=code, error=error, attempts=attempts, workflow=workflow)
    if app is not None:
        facts["app"] = app
    if isinstance(record, Unreadable):
        return NewRecord(value=None, headers=_headers({**facts, "kept": Kept.COORDINATES}))
    letter = NewRecord(value=record.value, key=record.key, headers=record.headers + _headers(facts))
    if bytes_max is None or letter.size <= bytes_max:
        return letter
    return _shortened(record, facts, bytes_max)


def parse_dead_letter(record: LogRecord) -> DeadLetter | None:
    """Read a dead letter; `None` if the record is none: it lacks our headers, or they do not say what they should."""
    names = [name for name, _ in record.headers]
    if PREFIX + "stage" not in names:
        return None
    cut = len(names) - 1 - names[::-1].index(PREFIX + "stage")
    facts = {
        name.removeprefix(PREFIX): value.decode("utf-8", "replace")
        for name, value in record.headers[cut:]
        if name.startswith(PREFIX)
    }
    try:
        return _letter(record, record.headers[:cut], facts)
    except (KeyError, ValueError):
        return None


def one_line(text: str, bytes_max: int = ERROR_BYTES_MAX) -> str:
    """Text for a header or a log line.

    Control characters and line ends become spaces; at most `bytes_max` bytes of UTF-8.
    """
    clean = _NOT_ONE_LINE.sub(" ", text[:bytes_max]).strip()
    raw = clean.encode()
    return clean if len(raw) <= bytes_max else raw[:bytes_max].decode("utf-8", "ignore")


def _facts(
    record: LogRecord | NewRecord | Unreadable,
    at: TopicPartition,
    *,
    stage: Stage,
    code: str,
    error: str,
    attempts: int,
    workflow: str | None,
) -> dict[str, object]:
    facts: dict[str, object] = {"stage": stage, "code": code, "error": one_line(error)}
    facts["topic"], facts["partition"] = at
    if not isinstance(record, NewRecord):
        facts["offset"] = record.offset
        if isinstance(record, Unreadable):
            facts["last-offset"] = record.last_offset
        facts["timestamp"] = record.timestamp_ms
    facts["attempts"] = attempts
    if workflow is not None:
        facts["workflow"] = one_line(workflow)
    return facts


def _shortened(record: LogRecord | NewRecord, facts: dict[str, object], bytes_max: int) -> NewRecord:
    if record.value is not None:
        facts = {**facts, "sha256": sha256(record.value).hexdigest(), "bytes": len(record.value)}
    headers = record.headers + _headers({**facts, "kept": Kept.NO_VALUE})
    letter = NewRecord(value=None, key=record.key, headers=headers)
    if letter.size <= bytes_max:
        return letter
    return NewRecord(value=None, headers=_headers({**facts, "kept": Kept.COORDINATES}))


def _headers(facts: dict[str, object]) -> Headers:
    return tuple((PREFIX + name, str(fact).encode()) for name, fact in facts.items())


def _letter(record: LogRecord, original: Headers, facts: dict[str, str]) -> DeadLetter:
    offset = _number(facts, "offset")
    last_offset = _number(facts, "last-offset")
    return DeadLetter(
        stage=Stage(facts["stage"]),
        code=facts["code"],
        error=facts["error"],
        topic=facts["topic"],
        partition=int(facts["partition"]),
        offset=offset,
        last_offset=offset if last_offset is None else last_offset,
        timestamp_ms=_number(facts, "timestamp"),
        attempts=int(facts["attempts"]),
        workflow=facts.get("workflow"),
        app=facts.get("app"),
        kept=Kept(facts.get("kept", Kept.ALL)),
        value_sha256=facts.get("sha256"),
        value_bytes=_number(facts, "bytes"),
        key=record.key,
        value=record.value,
        headers=original,
    )


def _number(facts: dict[str, str], name: str) -> int | None:
    return int(facts[name]) if name in facts else None
