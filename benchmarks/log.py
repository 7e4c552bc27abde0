"""What a log costs: `python -m benchmarks.log [--kafka HOST:PORT]`. Prints, asserts nothing.

For each log: one append at a time, append until read back, 64 appends in flight, and reading from the start.
Without `--kafka` a broker of our own is started (needs Java, see tests/kafka_broker); `--kafka none` leaves it out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.event_loop import run
from headrace.topics.log import Log, NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.log_kafka import KafkaClientSettings, KafkaLog
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker

RECORD = NewRecord(b"x" * 300, key=b"order-1")  # about the size of an outcome
IN_FLIGHT = 64
WARM_UP = 1500


async def one_at_a_time(log: Log, at: TopicPartition, count: int) -> list[float]:
    """Milliseconds until an append is acknowledged."""
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await log.append(at, [RECORD])
        took.append((time.perf_counter() - began) * 1000)
    return took


async def read_back(log: Log, topic: str, partitions: int, count: int) -> list[float]:
    """Milliseconds until an append is read by the same process, which reads so many partitions."""
    took: list[float] = []
    at = TopicPartition(topic, 0)
    everywhere = [TopicPartition(topic, number) for number in range(partitions)]
    ends = await log.offsets(everywhere)
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(log.read(one, ends[one].end)) for one in everywhere]
        async with asyncio.TaskGroup() as tasks:
            for number in range(count + 10):
                began = time.perf_counter()
                acknowledged = tasks.create_task(log.append(at, [RECORD]))
                await anext(readers[0])
                if number >= 10:  # until then the polls still gather their partitions
                    took.append((time.perf_counter() - began) * 1000)
                await acknowledged
    return took


async def in_flight(log: Log, topic: str, records: int, rounds: int) -> tuple[float, float]:
    """Records per second, and microseconds of this process's CPU per record, of 64 writers on 64 partitions."""

    async def write(number: int) -> None:
        for _ in range(rounds):
            await log.append(TopicPartition(topic, number), [RECORD] * records)

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(IN_FLIGHT):
            tasks.create_task(write(number))
    total = IN_FLIGHT * rounds * records
    return total / (time.perf_counter() - began), (time.process_time() - cpu) / total * 1e6


async def read_all(log: Log, at: TopicPartition) -> float:
    """Records per second from the start to the end of a partition."""
    end = (await log.offsets([at]))[at].end
    began, seen = time.perf_counter(), 0
    async with log.read(at, 0) as batches:
        while seen < end:
            seen += len((await anext(batches)).records)
    return seen / (time.perf_counter() - began)


async def measure(name: str, log: Log) -> None:
    topic = f"benchmark.{uuid.uuid4().hex[:8]}"
    at = TopicPartition(topic, 0)
    async with log:
        await log.create([TopicSpec(name=topic, partitions=IN_FLIGHT, timestamp_type="LogAppendTime")])
        await one_at_a_time(log, at, WARM_UP)  # a broker's compiler needs it
        await in_flight(log, topic, 1, 50)
        print(f"{name}")
        show("append, one at a time", await one_at_a_time(log, at, 1000))
        for partitions in (1, 8, 64):
            show(f"append to read back, {partitions} partitions", await read_back(log, topic, partitions, 1000))
        for records, rounds in ((1, 200), (20, 100)):
            rate, cpu = await in_flight(log, topic, records, rounds)
            print(
                f"  {IN_FLIGHT} in flight, {records:>2} records each".ljust(42)
                + f"{rate:>10,.0f} records/s  {cpu:5.1f} us CPU"
            )
        print("  read from the start".ljust(42) + f"{await read_all(log, TopicPartition(topic, 1)):>10,.0f} records/s")


def show(what: str, took: Sequence[float]) -> None:
    ordered = sorted(took)
    p99 = ordered[int(len(ordered) * 0.99) - 1]
    print(
        f"  {what}".ljust(42)
        + f"p50 {statistics.median(ordered):6.2f} ms  p99 {p99:6.2f} ms  max {ordered[-1]:6.2f} ms"
    )


async def main(kafka: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await measure("embedded", EmbeddedLog(Path(folder) / "log.sqlite", owner=True))
    if kafka == "none":
        return
    async with AsyncExitStack() as stack:
        if kafka is None:
            kafka = (await stack.enter_async_context(KafkaBroker(steady=True))).bootstrap_servers
        await measure("kafka", KafkaLog(KafkaClientSettings(bootstrap_servers=tuple(kafka.split(",")))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", help="bootstrap servers; `none`: only the embedded log")
    run(main(parser.parse_args().kafka))
