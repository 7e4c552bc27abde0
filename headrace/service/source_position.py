"""A source partition's committed position and what is kept beside it: how far it may have been touched, and how often its first record was tried.

The metadata are hints: nothing that is lost with them is more than a few records read twice, which deduplication drops.
"""

from __future__ import annotations

import msgspec

from headrace.topics.log import Position


class SourcePosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """`offset` is the next record to do. `touched`: all below it may have been begun. `tries` is of the record at `offset`. `clean`: stopped in good order.

    `by`: the group member that committed it, where it is not clean.
    """

    offset: int
    touched: int = 0
    tries: int = 0
    clean: bool = False
    by: str = ""

    def position(self, by: str = "", /) -> Position:
        """As it is committed by this member."""
        metadata: dict[str, int | bool | str] = {"touched": self.touched, "tries": self.tries, "clean": self.clean}
        if by and not self.clean:
            metadata["by"] = by
        return Position(self.offset, msgspec.json.encode(metadata).decode())


class _Metadata(msgspec.Struct):
    touched: int = 0
    tries: int = 0
    clean: bool = False
    by: str = ""


def of(position: Position) -> SourcePosition:
    """What was committed. Metadata that cannot be read (a person moved the position with another tool) count as a clean stop."""
    try:
        metadata = msgspec.json.decode(position.metadata, type=_Metadata)
    except msgspec.DecodeError:
        return SourcePosition(position.offset, clean=True)
    return SourcePosition(position.offset, metadata.touched, metadata.tries, metadata.clean, metadata.by)
