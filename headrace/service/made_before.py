"""Whether anything was made of a source record before: asked of the topics, before a record is given up that may have come to something.

Reads one partition of the run log and the audit topic from end to end: for records over which a process ended several times, and for nothing else.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from headrace.service.audit_entry import decoded
from headrace.service.run_view.scan import Reading
from headrace.topics.errors import Fatal
from headrace.topics.log import LogUnavailable, OffsetOutOfRange, TopicPartition, every_partition
from headrace.topics.partition_hash import partition_of
from headrace.topics.redrive import Redriven

if TYPE_CHECKING:
    from headrace.service.shared import Shared
    from headrace.topics.log import LogRecord


def home_of(at: TopicPartition, record: LogRecord, partitions: int, redriven: Redriven | None = None) -> int:
    """The run-log partition that gets the commands of a source record: the same for all copies of a redriven one."""
    if record.key is not None:
        return partition_of(record.key, partitions)
    place = f"{at.topic}/{at.partition}/{record.offset}" if redriven is None else redriven.copies
    return partition_of(place.encode(), partitions)


async def made_before(shared: Shared, at: TopicPartition, epoch: int, record: LogRecord) -> bool:
    """True if a command of this record counts in the run log, or it is listed as one that makes none.

    Raises what the log raises, and `Fatal` where the run log cannot be read.
    """
    async with shared.start_reader.alone():
        return await _started(shared, at, epoch, record) or await _listed(shared, at, epoch, record.offset)


async def _started(shared: Shared, at: TopicPartition, epoch: int, record: LogRecord) -> bool:
    """By the marks of the fold, which know what was trimmed too."""
    found = shared.redriven(at, record)
    copy = found if isinstance(found, Redriven) else None
    home = TopicPartition(shared.names.runs, home_of(at, record, shared.partitions, copy))
    reading = Reading(
        home,
        shared.settings,
        partitions=shared.partitions,
        isolation="committed",
    )
    ends = (await shared.log.offsets([home]))[home]
    try:
        async with aclosing(reading.until(shared.log, ends)) as records:
            async for _ in records:
                pass
    except Fatal as error:
        if error.code == OffsetOutOfRange.code:
            raise LogUnavailable(f"{home} was trimmed while it was read.") from error
        raise
    marks = reading.state.dedupe.origins.get((at.topic, at.partition))
    if marks is None or marks.epoch < epoch:
        return False
    return marks.epoch > epoch or record.offset < marks.floor or record.offset in marks.seen


async def _listed(shared: Shared, at: TopicPartition, epoch: int, offset: int) -> bool:
    log = shared.log
    for part, offsets in (await log.offsets(await every_partition(log, shared.names.audit))).items():
        if offsets.start >= offsets.end:
            continue
        async with log.read(part, offsets.start, isolation="committed") as batches:
            async for batch in batches:
                for entry in batch.records:
                    value = getattr(entry, "value", None)
                    if value is not None and _lists(value, at, epoch, offset):
                        return True
                if batch.goes_on_at >= offsets.end:
                    break
    return False


def _lists(value: bytes, at: TopicPartition, epoch: int, offset: int) -> bool:
    entry = decoded(value)
    return entry is not None and entry.lists(at.topic, at.partition, epoch, offset)
