"""The collector on Kafka: reads the result topic from its start, a process of its own."""

import argparse
import time
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.collect import collect, options, result_of
from benchmarks.event_loop import run
from benchmarks.figures import Result
from benchmarks.order import PARTITIONS


async def main(arguments: argparse.Namespace) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=arguments.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        consumer.assign([TopicPartition(arguments.topic, partition) for partition in range(PARTITIONS)])
        await collect(arguments, results(consumer))


async def results(consumer: AIOKafkaConsumer) -> AsyncIterator[list[Result]]:
    while True:
        batches = await consumer.getmany(timeout_ms=200)
        received_us = time.time() * 1e6
        yield [
            result_of(record.value, record.timestamp, received_us) for records in batches.values() for record in records
        ]


if __name__ == "__main__":
    run(main(options(__doc__, "--bootstrap-servers")))
