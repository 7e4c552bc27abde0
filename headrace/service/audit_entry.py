"""An entry of `<app>.audit`: source records that made nothing, as a range of neighbours. Written by `set_aside.py`, read by `made_before.py` and by people."""

from __future__ import annotations

import msgspec


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields, in this order, are the record's JSON. `first` and `last` are offsets, both in it; `at_ms` is the log's time.

    `kind` is a `DiscardReason` when it is written; a later version may have more of them.
    """

    kind: str
    topic: str
    partition: int
    first: int
    last: int
    reason: str  # for people
    at_ms: int
    epoch: int = 0  # of the topic; left out if it is 0

    def lists(self, topic: str, partition: int, epoch: int, offset: int) -> bool:
        """Whether a source record is in it."""
        return (self.topic, self.partition, self.epoch) == (topic, partition, epoch) and (
            self.first <= offset <= self.last
        )


_decoder = msgspec.json.Decoder(AuditEntry)


def encoded(entry: AuditEntry) -> bytes:
    """The record's value."""
    return msgspec.json.encode(entry)


def decoded(value: bytes) -> AuditEntry | None:
    """Read a record's value; None: it is not ours."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
