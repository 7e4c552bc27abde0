"""A source partition's committed position and what is kept beside it: how far it may have been touched, and how often its first record was tried.

The metadata are hints: nothing that is lost with them is more than a few records read twice, which deduplication drops.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.topics.log import Position


class Before(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last record that was done: where it was, and its timestamp. Another one there means another topic of the same name."""

    offset: int
    timestamp_ms: int


class SourcePosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """`offset` is the next record to do. `touched`: all below it may have been begun. `tries` is of the record at `offset`. `clean`: stopped in good order.

    `by`: the group member that committed it, where it is not clean. `epoch`: of the replay, 0 if the topic was never rewound.
    `made`: a command made of this partition is in the run log, which so can never be empty again.
    """

    offset: int
    touched: int = 0
    tries: int = 0
    clean: bool = False
    by: str = ""
    epoch: int = 0
    before: Before | None = None
    made: bool = False

    def position(self, by: str = "", /) -> Position:
        """As it is committed by this member."""
        metadata: dict[str, Any] = {"touched": self.touched, "tries": self.tries, "clean": self.clean}
        if by and not self.clean:
            metadata["by"] = by
        if self.epoch:
            metadata["epoch"] = self.epoch
        if self.before is not None:
            metadata["before"] = self.before
        if self.made:
            metadata["made"] = True
        return Position(self.offset, msgspec.json.encode(metadata).decode())


def of(position: Position) -> SourcePosition:
    """What was committed. Metadata that cannot be read (a person moved the position with another tool) count as a clean stop."""
    try:
        metadata = msgspec.json.decode(position.metadata, type=dict[str, Any])
        return msgspec.convert(metadata | {"offset": position.offset}, SourcePosition)
    except msgspec.DecodeError:
        return SourcePosition(position.offset, clean=True)
