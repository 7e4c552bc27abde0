"""The run log's records: ownership, commands and outcomes in one envelope, as JSON that any Kafka tool shows.

`decode` never guesses: an unknown kind, body or format version raises `UnknownRecord`, and the owner stops the partition with an alarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.topics.command import Command
from headrace.topics.errors import Fatal
from headrace.topics.identity import Identity
from headrace.topics.outcome import Outcome, RunningAttempt

if TYPE_CHECKING:
    from headrace.topics.log import TopicPartition, Unreadable

FORMAT = 1
KNOCK = -2
"""The previous token of an announce that never counts: it only asks a holder that is about to give the partition away to do so now."""


class UnknownRecord(Fatal):
    """A record of the run log that this version cannot read. Never skipped: the partition stops."""

    code = "HR5101"


class Announce(msgspec.Struct, frozen=True, tag_field="kind", tag="announce", gc=False):
    """Open a token, if `previous_token` is still the newest (compare and set). The record's offset becomes the token."""

    app: str
    instance: str
    member: str
    nonce: str
    previous_token: int  # -1: none yet
    partitions: int
    v: int = FORMAT


class Release(msgspec.Struct, frozen=True, tag_field="kind", tag="release", gc=False):
    """Close the token. The successor leaves the listed attempts alone until `grace_ms` after this record, or until their result or the giver's end comes.

    Of very many attempts, the others were listed just before (`AttemptsGiven`).
    """

    token: int
    seq: int
    attempts: tuple[RunningAttempt, ...]
    grace_ms: int
    v: int = FORMAT


class CommandRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="command", gc=False):
    """A command with its identity."""

    id: Identity
    body: Command
    v: int = FORMAT


class OutcomeRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="outcome", gc=False):
    """An outcome under its token; seq starts at 0 and rises by one."""

    token: int
    seq: int
    body: Outcome
    v: int = FORMAT


RunRecord = Announce | Release | CommandRecord | OutcomeRecord

_NEWEST = "Run the newest version on all instances; the partition goes on where it stopped."
_decoder = msgspec.json.Decoder(RunRecord)
_encoder = msgspec.json.Encoder()


def encode(record: RunRecord) -> bytes:
    """The record's value on the wire."""
    return _encoder.encode(record)


def decode(value: bytes | None) -> RunRecord:
    """The record behind a value, or `UnknownRecord`."""
    if value is None:
        raise UnknownRecord(
            "A run-log record has no value.",
            why="Only Headrace may write to its run log.",
            do="Find out what else writes there, and restore the topic from a copy.",
        )
    try:
        record = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownRecord(
            f"A run-log record cannot be read: {error}",
            why="It was written by something else, or by a newer version of Headrace.",
            do=_NEWEST,
        ) from error
    if record.v != FORMAT:
        message = f"A run-log record has format version {record.v}; this version reads {FORMAT}."
        raise UnknownRecord(message, do=_NEWEST)
    return record


def unreadable(at: TopicPartition, found: Unreadable) -> UnknownRecord:
    """The error for records of the run log that cannot be had."""
    return UnknownRecord(
        f"Records {found.offset} to {found.last_offset} of {at} cannot be read: {found.reason}",
        code=found.code,
        why="Only Headrace may write to its run log.",
        do="Look at the broker's disk and at what else writes there; restore the topic from a copy.",
    )
