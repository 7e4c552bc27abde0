"""One record of a topic, from a given offset on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from headrace.topics.log import Log, LogRecord, TopicPartition, Unreadable

READ_S: Final = 10.0  # for a record that should be there; longer, and it is none: only what transactions leave behind


async def first_record_from(log: Log, at: TopicPartition, offset: int) -> LogRecord | Unreadable | None:
    """The first one at this offset or behind it. None if none came within `READ_S`. Raises what reading raises."""
    with anyio.move_on_after(READ_S):
        async with log.read(at, offset, isolation="committed") as batches:
            return (await anext(batches)).records[0]
    return None
