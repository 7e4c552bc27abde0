"""When Headrace took its first order: the append time of the first command in its run log."""

import asyncio
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer

from headrace.topics.log import LogRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog


class _Kind(msgspec.Struct, gc=False):
    kind: str


_DECODER = msgspec.json.Decoder(_Kind)


def _is_command(value: bytes | None) -> bool:
    return value is not None and _DECODER.decode(value).kind == "command"


async def first_command_kafka_us(bootstrap_servers: str, runs: str) -> float | None:
    """Since the epoch. Reads each partition up to its first command. None if the log was trimmed since; ValueError if there is none."""
    consumer = AIOKafkaConsumer(runs, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        found: list[int] = []
        partitions = sorted(consumer.assignment())
        if any((await consumer.beginning_offsets(partitions)).values()):
            return None
        ends = await consumer.end_offsets(partitions)
        waiting = {partition for partition in partitions if ends[partition]}
        consumer.pause(*(partition for partition in partitions if partition not in waiting))
        while waiting:
            batches = await consumer.getmany(timeout_ms=1000)
            for at, records in batches.items():
                first = next((record.timestamp for record in records if _is_command(record.value)), None)
                found += [] if first is None else [first]
                if first is not None or records[-1].offset + 1 >= ends[at]:
                    waiting.discard(at)
                    consumer.pause(at)
        return min(found) * 1e3


async def first_command_embedded_us(path: Path, runs: str) -> float | None:
    """Since the epoch. None if the log was trimmed since; ValueError if there is none."""
    async with EmbeddedLog(path, owner=False) as log:
        partitions = [TopicPartition(runs, number) for number in range(await log.partitions(runs))]
        ends = await log.offsets(partitions)
        if any(offsets.start for offsets in ends.values()):
            return None
        found = await asyncio.gather(*(_first(log, at, ends[at].end) for at in partitions))
        return min(first for first in found if first is not None) * 1e3


async def _first(log: EmbeddedLog, at: TopicPartition, end: int) -> int | None:
    if not end:
        return None
    async with log.read(at, 0) as batches:
        async for batch in batches:
            for record in batch.records:
                if isinstance(record, LogRecord) and _is_command(record.value):
                    return record.timestamp_ms
            if batch.records[-1].offset + 1 >= end:
                return None
    return None
