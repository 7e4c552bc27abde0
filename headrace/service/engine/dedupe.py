"""One dedupe rule for every command: per origin partition the highest floor and the exact set of identities accepted at or above it.

A high-water mark would not do: two routers that match differently lose or double records with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.topics.identity import ClientId, Coordinates, Identity

if TYPE_CHECKING:
    from headrace.topics.redrive import Redriven

PRUNE_MIN = 32  # identities: pruning walks the set, so it waits until there are so many more, and half as many again
REDRIVE_RETENTION_MS = 7 * 86_400_000  # of the log's time; part of what a log means, so no setting


class OriginMarks(msgspec.Struct):
    """What one origin partition has sent in its newest epoch. `seen` maps an offset to the `n`s accepted at it; a few below `floor` linger for a while.

    A few: with n partitions of a topic and m of the run log there are n times m of these.

    `newest` and `newest_ms`: offset and timestamp of the newest source record that made a start here. Another record there means another topic of that name.
    """

    epoch: int
    floor: int = 0
    seen: dict[int, tuple[str, ...]] = {}
    pruned_at: int = 0  # size of `seen` after the last pruning
    newest: int = -1
    newest_ms: int = 0


class Dedupe(msgspec.Struct):
    """Dedupe state of one run-log partition. `clients` holds the ids of client commands with the time they were accepted, in that order."""

    origins: dict[tuple[str, int], OriginMarks] = {}
    clients: dict[str, int] = {}
    epochs: dict[str, int] = {}  # the newest of each source topic that was ever rewound
    redrives: dict[
        str, int
    ] = {}  # starts made of redriven dead letters, with the time they were accepted, in that order

    def accept(self, identity: Identity, at_ms: int, client_retention_ms: int) -> bool:
        """True if this identity was never accepted before; it is noted then. The floor rises either way."""
        if isinstance(identity, Coordinates):
            return self._accept_coordinates(identity)
        if isinstance(identity, ClientId):
            return self._accept_client(identity.id, at_ms, client_retention_ms)
        return True  # a slot: whether it is the next one is for its schedule to say

    def _accept_coordinates(self, identity: Coordinates) -> bool:
        marks = self.origins.get((identity.origin, identity.partition))
        if marks is None and identity.epoch < self.epochs.get(identity.origin, 0):
            return False
        # a rewind begins anew; what is left of older epochs is dropped
        if marks is None or marks.epoch < identity.epoch:
            marks = self.origins[identity.origin, identity.partition] = OriginMarks(epoch=identity.epoch, seen={})
        elif marks.epoch > identity.epoch:
            return False
        new = self._note(marks, identity)
        if identity.floor > marks.floor:
            marks.floor = identity.floor
            if len(marks.seen) >= marks.pruned_at + max(PRUNE_MIN, marks.pruned_at // 2):
                marks.seen = {offset: ns for offset, ns in marks.seen.items() if offset >= marks.floor}
                marks.pruned_at = len(marks.seen)
        return new

    def begin_epoch(self, topic: str, epoch: int, offsets: tuple[int, ...]) -> bool:
        """True if it is newer: what came in older ones is forgotten, and everything below the offsets, by partition, is done.

        A router that has heard of it from another partition may have been faster: what it has sent in this epoch stays known.
        """
        if epoch <= self.epochs.get(topic, 0):
            return False
        self.epochs[topic] = epoch
        for origin in [origin for origin, marks in self.origins.items() if origin[0] == topic and marks.epoch < epoch]:
            del self.origins[origin]
        for partition, offset in enumerate(offsets):
            marks = self.origins.get((topic, partition))
            if marks is None:
                self.origins[topic, partition] = OriginMarks(epoch=epoch, floor=offset, seen={})
            elif marks.epoch == epoch:
                marks.floor = max(marks.floor, offset)
        return True

    def note_record(self, identity: Coordinates, topic: str, timestamp_ms: int) -> None:
        """The source record of a start that was accepted, unless it came through another partition of the run log."""
        if identity.origin != topic:
            return
        marks = self.origins.get((identity.origin, identity.partition))
        if marks is not None and identity.offset > marks.newest:
            marks.newest, marks.newest_ms = identity.offset, timestamp_ms

    @staticmethod
    def _note(marks: OriginMarks, identity: Coordinates) -> bool:
        if identity.offset < marks.floor:
            return False
        ns = marks.seen.get(identity.offset)
        if ns is None:
            marks.seen[identity.offset] = (identity.n,)
            return True
        if identity.n in ns:
            return False
        marks.seen[identity.offset] = (*ns, identity.n)
        return True

    def accept_redrive(self, identity: Coordinates, redriven: Redriven, at_ms: int) -> bool:
        """True if no other copy of this redrive made this start before. Asked of a start that `accept` has let through.

        Copies lie at places of their own, so that their coordinates are not enough. They are made while nobody has noted yet that the letter was redriven,
        moments apart, and are read one behind the other: those of the last seven days are more than enough to know.
        """
        return _accept_new(
            self.redrives, f"{identity.epoch}/{redriven.copies}/{identity.n}", at_ms, REDRIVE_RETENTION_MS
        )

    def _accept_client(self, client_id: str, at_ms: int, retention_ms: int) -> bool:
        return _accept_new(self.clients, client_id, at_ms, retention_ms)


def _accept_new(known: dict[str, int], id_: str, at_ms: int, retention_ms: int) -> bool:
    if id_ in known:
        return False
    expired: list[str] = []
    for old, accepted_at_ms in known.items():
        if accepted_at_ms >= at_ms - retention_ms:
            break
        expired.append(old)
    for old in expired:
        del known[old]
    known[id_] = at_ms
    return True
