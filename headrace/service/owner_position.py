"""What an owner commits for its run-log partition in the group `<app>.owners`: hints for whoever owns it next, and for routers. Nothing is lost with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from headrace.service.position_writer import PositionWriter
from headrace.topics.errors import HeadraceError
from headrace.topics.log import Position

if TYPE_CHECKING:
    from headrace.topics.log import Log, TopicPartition

_METADATA_BYTES_MAX = 4_000  # brokers take 4 096


class OwnerPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """`offset` is the first record that is in no checkpoint."""

    offset: int
    checkpoint: int = -1  # offset of the newest complete checkpoint's first chunk; -1: none
    token: int = -1  # of the owner that wrote this
    log: str = ""  # which log of this name it is: `Gate.first`
    partitions: int = 0  # of the run log
    backlog: dict[str, int] = {}  # bytes of unadmitted starts, by source topic
    held: int = 0  # bytes of log before `offset`, kept for the history alone

    def position(self, _by: str = "", /) -> Position:
        """As it is committed. A backlog that does not fit is left out."""
        metadata = _encode(self)
        if len(metadata) > _METADATA_BYTES_MAX:
            metadata = _encode(msgspec.structs.replace(self, backlog={}))
        return Position(self.offset, metadata.decode())


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(OwnerPosition).decode


def of(position: Position) -> OwnerPosition:
    """What was committed. Metadata that cannot be read say nothing."""
    try:
        return msgspec.structs.replace(_decode(position.metadata), offset=position.offset)
    except msgspec.DecodeError:
        return OwnerPosition(position.offset)


class OwnerPositions:
    """One per process: the newest position of every partition that it owns, committed soon, and again every day."""

    def __init__(self, log: Log, group: str) -> None:
        self._writer = PositionWriter(log, group)
        self._newest: dict[TopicPartition, OwnerPosition] = {}
        self._refused: set[TopicPartition] = set()

    def taken(self, at: TopicPartition, position: OwnerPosition) -> None:
        """A token was taken: this is what is known."""
        self._newest[at] = position
        self._writer.move(at, position)

    async def checkpointed(self, at: TopicPartition, as_of: int, checkpoint: int, held_bytes: int = 0) -> None:
        """A checkpoint is complete. Returns when it is committed; raises what the log raises, and tries again later."""
        known = self._newest.get(at)
        if known is not None:
            self._newest[at] = position = msgspec.structs.replace(
                known, offset=as_of + 1, checkpoint=checkpoint, held=held_bytes
            )
            await self._writer.note({at: position})

    def backlog(self, at: TopicPartition, backlog: dict[str, int]) -> None:
        """Bytes of starts that wait for room here, by source topic: committed soon if they changed."""
        known = self._newest.get(at)
        if known is not None and known.backlog != backlog:
            self._newest[at] = position = msgspec.structs.replace(known, backlog=backlog)
            self._writer.move(at, position)

    async def refused(self, at: TopicPartition, first: str, partitions: int) -> None:
        """The log is another one than this: whoever comes next shall hear of it too. Brokers forget with a topic what was committed for it."""
        self._newest[at] = position = OwnerPosition(offset=0, log=first, partitions=partitions)
        self._refused.add(at)
        with contextlib.suppress(HeadraceError):  # it is committed later
            await self._writer.note({at: position})

    def forget(self, at: TopicPartition) -> None:
        """The partition is not ours any more."""
        self._newest.pop(at, None)
        if at in self._refused:
            self._refused.discard(at)
            self._writer.leave(at)
        else:
            self._writer.forget(at)

    async def run(self) -> None:
        """Commit until stopped."""
        await self._writer.run()

    def stop(self) -> None:
        """Let `run` return after a last commit."""
        self._writer.stop()
