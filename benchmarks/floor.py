"""The floor: the same work in a plain aiokafka loop, without durability, retries, metrics or order per key.

Takes records in batches, awaits the same steps as coroutines, sends a result for each, and once a second flushes and
commits. Prints `ready`, and on SIGTERM a line of JSON: when it got its first record.
"""

import argparse
import asyncio
import json
import signal
import time

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from benchmarks.event_loop import run
from benchmarks.order import RESULT_TYPE

COMMIT_EVERY_S = 1.0
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_source", b"/benchmarks/floor"),
    ("ce_type", RESULT_TYPE.encode()),
    ("content-type", b"application/json"),
]


class Line(msgspec.Struct):
    article: str
    quantity: int


class Order(msgspec.Struct):
    order: str
    customer: str
    total: int
    currency: str
    lines: list[Line]


DECODER = msgspec.json.Decoder(Order)


async def check(order: Order) -> bool:
    return order.total > 0


async def reserve(order: Order) -> str:
    return f"reservation-{order.order}"


async def invoice(order: Order) -> str:
    return f"invoice-{order.order}"


async def shipping(order: Order) -> str:
    return f"shipping-{order.order}"


class Floor:
    """`first_us`: when the first record arrived, since the epoch; 0: not yet."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, results: str) -> None:
        self.first_us = 0.0
        self._consumer = consumer
        self._producer = producer
        self._results = results

    async def work(self, stop: asyncio.Event) -> None:
        committed, open_ = time.monotonic(), False
        while not stop.is_set():
            batches = await self._consumer.getmany(timeout_ms=100)
            for records in batches.values():
                self.first_us = self.first_us or time.time() * 1e6
                open_ = True
                for record in records:
                    await self.order(record)
            if open_ and time.monotonic() - committed > COMMIT_EVERY_S:
                await self._producer.flush()
                await self._consumer.commit()
                committed, open_ = time.monotonic(), False

    async def order(self, record: ConsumerRecord) -> None:
        order = DECODER.decode(record.value or b"")
        in_stock = await check(order)
        reservation = await reserve(order)
        billed, sent = await asyncio.gather(invoice(order), shipping(order))
        await self.emit(
            record,
            {
                "order": order.order,
                "in_stock": in_stock,
                "reservation": reservation,
                "invoice": billed,
                "shipping": sent,
            },
        )

    async def emit(self, record: ConsumerRecord, result: dict[str, object]) -> None:
        headers = [("ce_id", str(result["order"]).encode()), *HEADERS]
        value = msgspec.json.encode(result)
        await self._producer.send(self._results, value, key=record.key, partition=record.partition, headers=headers)


async def main(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    servers = arguments.bootstrap_servers
    consumer = AIOKafkaConsumer(
        arguments.orders,
        bootstrap_servers=servers,
        group_id=f"{arguments.orders}.floor",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,  # as Headrace's
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=0, acks="all", max_batch_size=524288)
    async with producer, consumer:
        floor = Floor(consumer, producer, arguments.results)
        print("ready", flush=True)
        await floor.work(stop)
    print(json.dumps({"first_us": floor.first_us}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--orders", required=True, help="topic to read")
    parser.add_argument("--results", required=True, help="topic to write; as many partitions as the other")
    run(main(parser.parse_args()))
