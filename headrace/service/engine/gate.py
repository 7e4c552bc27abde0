"""The accept rule: which announces, releases and outcomes of a partition count. Part of the partition's state, applied by every reader to every record."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from headrace.topics.run_record import Announce, OutcomeRecord, Release

NO_TOKEN = -1


class Skip(StrEnum):
    """Why a record has no effect. A label of `headrace_log_skipped_records_total`."""

    STALE_TOKEN = "stale_token"  # noqa: S105 - a fencing token, no password
    SEQUENCE_GAP = "sequence_gap"
    DUPLICATE = "duplicate"


class Gate(msgspec.Struct):
    """`last` is the newest accepted announce's offset, `token` the same while it is open (-1: released, or none yet), `seq` the last accepted one.

    `first` is the nonce of the very first accepted announce: it tells this log from another one of the same name. `partitions` is what the newest one says,
    `holder` the group member that made it.
    """

    last: int = NO_TOKEN
    token: int = NO_TOKEN
    nonce: str = ""
    seq: int = -1
    first: str = ""
    partitions: int = 0
    holder: str = ""

    def announce(self, offset: int, record: Announce) -> Skip | None:
        """Compare and set: a retried or late announce changes nothing."""
        if record.previous_token != self.last:
            return Skip.DUPLICATE if record.nonce == self.nonce else Skip.STALE_TOKEN
        self.last = self.token = offset
        self.nonce, self.seq, self.holder = record.nonce, -1, record.member
        self.first, self.partitions = self.first or record.nonce, record.partitions
        return None

    def admit(self, record: OutcomeRecord | Release) -> Skip | None:
        """None if the record counts; its seq is then used up, and a release closes the token."""
        if record.token != self.token or self.token == NO_TOKEN:
            return Skip.STALE_TOKEN
        if record.seq != self.seq + 1:
            return Skip.DUPLICATE if record.seq <= self.seq else Skip.SEQUENCE_GAP
        self.seq = record.seq
        if isinstance(record, Release):
            self.token = NO_TOKEN
        return None
