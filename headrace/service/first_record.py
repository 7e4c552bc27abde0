"""One record of a topic, from a given offset on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from headrace.topics.log import Log, LogRecord, TopicPartition, Unreadable

READ_S: Final = 10.0
"""For a record that should be there; longer, and it is none: only what transactions leave behind."""


async def first_record_from(
    log: Log, at: TopicPartition, offset: int, end: int, *, patience_s: float | None = None
) -> LogRecord | Unreadable | None:
    """The first one at this offset or behind it and below `end`. Raises what reading raises.

    None: there is none, or none came within `patience_s` (None: `READ_S`).
    """
    with anyio.move_on_after(READ_S if patience_s is None else patience_s):
        async with log.read(at, offset, isolation="committed") as batches:
            async for batch in batches:
                if batch.records:
                    return batch.records[0] if batch.records[0].offset < end else None
                if batch.goes_on_at >= end:
                    return None
    return None
