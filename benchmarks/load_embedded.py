"""The load on the embedded log: publishes through the file, as another process on the machine would."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from benchmarks.event_loop import run
from benchmarks.load import Sent, options, say, send_on_time, word
from benchmarks.order import PARTITIONS, order_body, order_headers, order_id
from benchmarks.pacer import Pacer
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.partition_hash import kafka_partition_of

BURST_BATCH = 500


async def main(arguments: argparse.Namespace) -> None:
    async with EmbeddedLog(Path(arguments.log_path), owner=False) as log, asyncio.TaskGroup() as group:
        await word()
        pacer = Pacer(arguments.rate, arguments.count)

        async def send(number: int, _due_us: float) -> "asyncio.Future[Any]":
            at, record = placed(arguments.topic, number)
            return group.create_task(log.publish(at, [record]))

        say(await send_on_time(pacer, send) if arguments.rate else await send_all(pacer, log, arguments.topic))


def placed(topic: str, number: int) -> tuple[TopicPartition, NewRecord]:
    """The order's record, and where a Kafka client would put it."""
    key = order_id(number).encode()
    at = TopicPartition(topic, kafka_partition_of(key, PARTITIONS))
    return at, NewRecord(order_body(number), key, tuple(order_headers(number)))


async def send_all(pacer: Pacer, log: EmbeddedLog, topic: str) -> Sent:
    """The burst, in batches: a commit for each order would take a minute."""
    batches: dict[TopicPartition, list[NewRecord]] = {}
    for number in range(pacer.schedule.count):
        at, record = placed(topic, number)
        batches.setdefault(at, []).append(record)
    for at, records in batches.items():
        for first in range(0, len(records), BURST_BATCH):
            await log.publish(at, records[first : first + BURST_BATCH])
    return Sent.at_once(pacer.schedule.start_us)


if __name__ == "__main__":
    run(main(options(__doc__, "--log-path")))
