"""What comes first to a topic."""

import asyncio

from headrace.topics.log import Log, LogRecord, TopicPartition


async def first_record(log: Log, at: TopicPartition) -> LogRecord:
    """The first record of a partition; waits for it."""
    async with log.read(at, 0) as batches:
        async for batch in batches:
            record = batch.records[0]
            assert isinstance(record, LogRecord)
            return record
    raise AssertionError


async def first_record_of_topic(log: Log, topic: str) -> LogRecord:
    """The first record of a topic, in whichever partition it comes."""
    async with asyncio.TaskGroup() as group:
        places = [TopicPartition(topic, index) for index in range(await log.partitions(topic))]
        done, rest = await asyncio.wait(
            [group.create_task(first_record(log, at)) for at in places], return_when=asyncio.FIRST_COMPLETED
        )
        for task in rest:
            task.cancel()
    return done.pop().result()
