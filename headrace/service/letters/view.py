"""How dead letters are shown and chosen: one in a row, one with all that is known, and counts. Pure. The field names are the JSON of `dlq` and of the API."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import msgspec

from headrace.service.letters.book import OPEN_STATES, LetterState
from headrace.topics.dead_letter import Kept, Stage, dead_letter_topic
from headrace.topics.event import format_time

if TYPE_CHECKING:
    from headrace.service.letters.book import Handled
    from headrace.topics.dead_letter import DeadLetter
    from headrace.topics.log import LogRecord, TopicPartition


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. Times are RFC 3339 in UTC; `at`: when it became one. `source` is `topic/partition/offset`; a refused output has none.

    `to` is the topic that a redrive sends it to, `attempts` counts the tries of the record, redrives of earlier letters included, `redrives` those of this one.
    Keys are added, never renamed.
    """

    id: str
    topic: str
    partition: int
    offset: int
    at: str
    state: LetterState
    stage: Stage
    code: str
    error: str
    workflow: str | None
    app: str | None
    source: str | None
    to: str
    key: str | None
    attempts: int
    bytes: int
    kept: Kept
    redrives: int
    handled_at: str | None
    handled_by: str
    note: str


class DeadLetterDetail(DeadLetterView, frozen=True, kw_only=True):
    """The same, and the original. A value that is no UTF-8 text is in `value_base64`; `value_sha256` and `value_bytes` are of one that was not kept."""

    source_at: str | None
    last_offset: int | None
    headers: tuple[tuple[str, str], ...]
    value: str | None
    value_base64: str | None
    value_sha256: str | None
    value_bytes: int | None


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are wanted: empty and None mean any. `topic` is a source topic or the topic of the letters; `since_ms`: became one then or later.

    `app`: those of other apps are not wanted.
    """

    app: str
    topic: str | None = None
    stage: str | None = None
    code: str | None = None
    workflow: str | None = None
    since_ms: int | None = None
    states: frozenset[LetterState] = OPEN_STATES

    def wants_topic(self, topic: str) -> bool:
        """Whether a dead-letter topic may have any."""
        return self.topic is None or topic in {self.topic, dead_letter_topic(self.topic)}

    def wants(self, letter: DeadLetter, at_ms: int, state: LetterState) -> bool:
        """Whether this is one."""
        return (
            state in self.states
            and letter.app in {None, self.app}
            and (self.stage is None or letter.stage == self.stage)
            and (self.code is None or letter.code == self.code)
            and (self.workflow is None or letter.workflow == self.workflow)
            and (self.since_ms is None or at_ms >= self.since_ms)
        )


class LetterCount(msgspec.Struct, kw_only=True):
    """Letters of one topic, stage, code and workflow. `open` has those that are being redriven, too; the times are of the open ones."""

    topic: str
    stage: Stage
    code: str
    workflow: str | None
    open: int = 0
    redriven: int = 0
    resolved: int = 0
    oldest_at: str | None = None
    newest_at: str | None = None

    def add(self, at_ms: int, state: LetterState) -> None:
        """One more, not older than those before in its partition."""
        if state in OPEN_STATES:
            self.open += 1
            at = format_time(at_ms)
            self.oldest_at = min(self.oldest_at or at, at)
            self.newest_at = max(self.newest_at or at, at)
        elif state is LetterState.REDRIVEN:
            self.redriven += 1
        else:
            self.resolved += 1


def letter_id(at: TopicPartition, offset: int) -> str:
    """What people call a letter."""
    return f"{at}/{offset}"


def view_of(at: TopicPartition, record: LogRecord, letter: DeadLetter, handled: Handled) -> DeadLetterView:
    """One letter in a row."""
    touched = handled.state is not LetterState.OPEN or handled.redrives > 0
    return DeadLetterView(
        id=letter_id(at, record.offset),
        topic=at.topic,
        partition=at.partition,
        offset=record.offset,
        at=format_time(record.timestamp_ms),
        state=handled.state,
        stage=letter.stage,
        code=letter.code,
        error=letter.error,
        workflow=letter.workflow,
        app=letter.app,
        source=None if letter.offset is None else f"{letter.topic}/{letter.partition}/{letter.offset}",
        to=letter.topic,
        key=None if letter.key is None else letter.key.decode("utf-8", "replace"),
        attempts=letter.attempts,
        bytes=len(letter.value or b""),
        kept=letter.kept,
        redrives=handled.redrives,
        handled_at=format_time(handled.at_ms) if touched else None,
        handled_by=handled.by,
        note=handled.note,
    )


def detail_of(at: TopicPartition, record: LogRecord, letter: DeadLetter, handled: Handled) -> DeadLetterDetail:
    """One letter with its original."""
    try:
        text, encoded = None if letter.value is None else letter.value.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, b64encode(letter.value or b"").decode()
    view = msgspec.structs.asdict(view_of(at, record, letter, handled))
    return DeadLetterDetail(
        **view,
        source_at=None if letter.timestamp_ms is None else format_time(letter.timestamp_ms),
        last_offset=None if letter.last_offset == letter.offset else letter.last_offset,
        headers=tuple((name, value.decode("utf-8", "replace")) for name, value in letter.headers),
        value=text,
        value_base64=encoded,
        value_sha256=letter.value_sha256,
        value_bytes=letter.value_bytes,
    )
