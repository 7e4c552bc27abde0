"""Is a source topic still the one that was read? The record before the position tells: its timestamp was kept when the position moved; or one that owners
know, where the position is gone.

Called by `source.py` whenever it begins to read. A topic that was deleted and made again under a reader's feet would otherwise lose what is below the old
position, or have its records taken for repeats.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from headrace.service.first_record import first_record_from
from headrace.topics.errors import Fatal
from headrace.topics.log import OffsetOutOfRange

if TYPE_CHECKING:
    from headrace.service.source_position import Before
    from headrace.topics.log import Log, Offsets, TopicPartition

_READ_S = 5.0  # for a record that is there; longer, and what is there is no record
_WHY = "The topic was deleted and made again, was truncated, or its records were restored."
_DO = (
    "Look at what is in it now, then say where to read on: `headrace topic rewind {topic} --to earliest|latest|OFFSET`."
)


class TopicRemade(Fatal):
    """A source topic is not what it was. Nothing of it is read until a new replay epoch is given."""

    code = "HR5012"


def ends_before(at: TopicPartition, floor: int, offsets: Offsets) -> TopicRemade:
    """The topic ends before our position."""
    message = f"{at} was read up to offset {floor}, and ends at {offsets.end}."
    return TopicRemade(message, why=_WHY, do=_DO.format(topic=at.topic))


async def check(log: Log, at: TopicPartition, before: Before, offsets: Offsets) -> None:
    """`TopicRemade` if another record is at this place now, or none was there yet.

    A record that is not there any more (retention, compaction) tells nothing.
    """
    if before.offset >= offsets.end:
        raise ends_before(at, before.offset + 1, offsets)
    if before.offset < offsets.start:
        return
    found = None
    with contextlib.suppress(OffsetOutOfRange):  # retention may take it now
        found = await first_record_from(log, at, before.offset, before.offset + 1, patience_s=_READ_S)
    if found is not None and found.offset == before.offset and found.timestamp_ms != before.timestamp_ms:
        raise TopicRemade(
            f"{at} has another record at offset {before.offset}: of {found.timestamp_ms} ms, not {before.timestamp_ms} ms.",
            why=_WHY,
            do=_DO.format(topic=at.topic),
        )
