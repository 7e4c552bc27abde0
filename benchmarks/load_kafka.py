"""The load on Kafka: our own aiokafka producer, a process of its own. The record's timestamp is the order's due time."""

import argparse
import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.event_loop import run
from benchmarks.load import Send, Sent, options, say, send_on_time, word
from benchmarks.order import order_body, order_headers, order_id
from benchmarks.pacer import Pacer


async def main(arguments: argparse.Namespace) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=arguments.bootstrap_servers, linger_ms=0, acks="all")
    async with producer:
        await producer.partitions_for(arguments.topic)  # metadata, so that the first order does not wait for it
        await word()
        pacer = Pacer(arguments.rate, arguments.count)

        async def send(number: int, due_us: float) -> "asyncio.Future[Any]":
            return await producer.send(
                arguments.topic,
                order_body(number),
                key=order_id(number).encode(),
                headers=order_headers(number),
                timestamp_ms=int(due_us / 1e3),
            )

        say(await send_on_time(pacer, send) if arguments.rate else await send_all(pacer, send, producer))


async def send_all(pacer: Pacer, send: Send, producer: AIOKafkaProducer) -> Sent:
    for number in range(pacer.schedule.count):
        await send(number, pacer.now_us())
    await producer.flush()
    return Sent.at_once(pacer.schedule.start_us)


if __name__ == "__main__":
    run(main(options(__doc__, "--bootstrap-servers")))
