"""`python -m benchmarks.backlog`: what waits, and what that costs: memory, order, and the delays of others. One `headrace serve` on a real Kafka.

drain    orders that came while nobody was there (default 100 000), and fresh ones meanwhile: is memory bounded, does the oldest work come first?
burst    a steady load, ten times as much for a while, the steady load again
hot      a key that gets more orders than it can take, one at a time: what others notice of it
slow     slots that are taken by a slow handler type: `python -m benchmarks.neighbours`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

import msgspec

from benchmarks.event_loop import run
from benchmarks.figures import spread
from benchmarks.program import Program
from benchmarks.usage import Sampler, usage
from headrace.topics.client_kafka import KafkaClientSettings
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.log_kafka import KafkaLog
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker

APP = Path(__file__).parent / "backlog_app"
SOURCES = 8  # partitions of the source topic
BATCH = 500
MIB = 1 << 20
PATIENCE_S = 900.0
TICK_S = 0.005


class Result(msgspec.Struct):
    n: int


class Place:
    """One app on the broker: orders go in, results are noted as they come. Times are the broker's append times, in milliseconds."""

    def __init__(self, name: str, servers: str, folder: Path) -> None:
        self.name = name
        self.log = KafkaLog(KafkaClientSettings(bootstrap_servers=(servers,)))
        self.sent_ms: dict[int, float] = {}  # when an order was due
        self.done_ms: dict[int, int] = {}
        self._servers = servers
        self._folder = folder

    def serve(self) -> Program:
        settings = {
            "app.name": self.name,
            "log.partitions": 8,
            "kafka.bootstrap_servers": self._servers,
            "api.enabled": "false",
            "telemetry.metrics_port": 0,
            "telemetry.log_level": "warning",
        }
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return Program(
            [sys.executable, "-m", "headrace", "serve", os.fspath(APP), "--create-topics", *flags],
            log=self._folder / f"{self.name}.log",
            folder=self._folder,
            environment={"BENCH_ORDERS": f"{self.name}.orders", "BENCH_RESULTS": f"{self.name}.results"},
            talking=False,
        )

    async def send(self, orders: range, *, kind: str = "plain", key: str = "", ms: int = 0) -> None:
        """Orders, numbered; each has a key of its own if none is given."""
        now_ms = time.time() * 1000
        batches: dict[int, list[NewRecord]] = {}
        for n in orders:
            self.sent_ms[n] = now_ms
            of = key or f"k{n}"
            headers = (
                ("ce_specversion", b"1.0"),
                ("ce_id", b"o%d" % n),
                ("ce_source", b"/benchmarks"),
                ("ce_type", f"bench.{kind}".encode()),
                ("content-type", b"application/json"),
            )
            body = msgspec.json.encode(
                {"n": n, "key": of, "ms": ms, "note": "two of these, one of those, by Friday " * 4}
            )
            batches.setdefault(crc32(of.encode()) % SOURCES, []).append(
                NewRecord(value=body, key=of.encode(), headers=headers)
            )
        for partition, records in batches.items():
            await self.log.publish(TopicPartition(f"{self.name}.orders", partition), records)

    async def flow(
        self, first: int, rate: float, seconds: float, *, kind: str = "plain", key: str = "", ms: int = 0
    ) -> int:
        """The same, evenly for so long. The number behind the last one."""
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            due = int(elapsed * rate)
            if due > sent:
                await self.send(range(first + sent, first + due), kind=kind, key=key, ms=ms)
                sent = due
            await asyncio.sleep(TICK_S)
        return first + sent

    async def follow(self) -> None:
        """Note results until cancelled."""
        topic = f"{self.name}.results"
        async with asyncio.TaskGroup() as tasks:
            for partition in range(await self.log.partitions(topic)):
                tasks.create_task(self._follow(TopicPartition(topic, partition)))

    async def _follow(self, at: TopicPartition) -> None:
        async with self.log.read(at, 0) as batches:
            async for batch in batches:
                for record in batch.records:
                    assert isinstance(record, LogRecord)
                    self.done_ms.setdefault(
                        msgspec.json.decode(record.value or b"", type=Result).n, record.timestamp_ms
                    )

    async def done(self, count: int) -> None:
        """Return when so many orders have their result."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.done_ms) < count:
                await asyncio.sleep(0.05)

    def delays(self, orders: range) -> list[float]:
        """From due to done, of those that are."""
        return [self.done_ms[n] - self.sent_ms[n] for n in orders if n in self.done_ms]


@asynccontextmanager
async def placed(name: str, servers: str, folder: Path) -> AsyncIterator[Place]:
    place = Place(name, servers, folder)
    async with place.log, asyncio.TaskGroup() as tasks:
        topics = [
            TopicSpec(name=f"{name}.orders", partitions=SOURCES),
            TopicSpec(name=f"{name}.results", partitions=SOURCES, timestamp_type="LogAppendTime"),
        ]
        await place.log.create(topics)
        following = tasks.create_task(place.follow())
        try:
            yield place
        finally:
            following.cancel()


@asynccontextmanager
async def serving(place: Place) -> AsyncIterator[Sampler]:
    async with place.serve() as process:
        with Sampler(process.pid) as sampler:
            yield sampler
        sampler.samples.append(usage(process.pid))


def line(name: str, *figures: str) -> None:
    print(f"| {name} | " + " | ".join(figures) + " |", flush=True)


def delays(found: list[float]) -> tuple[str, str, str]:
    if not found:
        return ("-", "-", "-")
    of = spread(found)
    return (f"{of.p50:.0f}", f"{of.p99:.0f}", f"{of.max:.0f}")


async def drain(place: Place, given: argparse.Namespace) -> None:
    """Who finishes before whom: by how many places an order is late beside the order of arrival, those that came later and were done earlier."""
    old = given.orders
    for first in range(0, old, BATCH):
        await place.send(range(first, min(first + BATCH, old)))
    began = time.monotonic()
    async with serving(place) as sampler:
        end = await place.flow(old, given.fresh, 10.0)
        await place.done(end)
        seconds = time.monotonic() - began
    finished = sorted(range(end), key=lambda n: (place.done_ms[n], n))
    places = sorted(abs(rank - n) for rank, n in enumerate(finished))
    last_old_ms = max(place.done_ms[n] for n in range(old))
    overtook = sum(place.done_ms[n] < last_old_ms for n in range(old, end))
    print(f"\ndrain: {old} orders lay there, {end - old} came while they were done\n")
    print("| | seconds | orders/s | peak MiB | out of turn, p99 (places) | fresh ones before the last old one |")
    print("|---|---|---|---|---|---|")
    peak = sampler.peak_bytes / MIB
    late = places[int(len(places) * 0.99)]
    line("drain", f"{seconds:.1f}", f"{end / seconds:.0f}", f"{peak:.0f}", f"{late}", f"{overtook}")


async def burst(place: Place, given: argparse.Namespace) -> None:
    async with serving(place) as sampler:
        number = await place.flow(0, 20, 3.0)
        await place.done(number)  # it works
        steady = await place.flow(number, given.rate, given.seconds)
        before = sampler.peak_bytes
        peak = await place.flow(steady, given.rate * 10, given.seconds)
        after = await place.flow(peak, given.rate, 2 * given.seconds)
        await place.done(after)
        highest = sampler.peak_bytes
    print(f"\nburst: {given.rate:g} orders/s, ten times as many for {given.seconds:g} s, {given.rate:g} again\n")
    print("| | p50 ms | p99 ms | max ms | peak MiB |\n|---|---|---|---|---|")
    line("before", *delays(place.delays(range(number, steady))), f"{before / MIB:.0f}")
    line("ten times", *delays(place.delays(range(steady, peak))), f"{highest / MIB:.0f}")
    line("after", *delays(place.delays(range(peak, after))), "")
    last_late_ms = max(
        (place.sent_ms[n] for n in range(steady, after) if place.done_ms[n] - place.sent_ms[n] > 1_000), default=None
    )
    since_ms = place.sent_ms[peak - 1]
    over = "never" if last_late_ms is None else f"until {max(0.0, last_late_ms - since_ms) / 1000:.1f} s after it"
    print(f"\ndelays above 1 s: {over}")


async def hot(place: Place, given: argparse.Namespace) -> None:
    """The hot key gets twice what it can take: an order takes 20 ms, one at a time."""
    async with serving(place) as sampler:
        number = await place.flow(0, 20, 3.0, kind="keyed")
        await place.done(number)
        alone = await place.flow(number, given.rate, given.seconds, kind="keyed")
        await place.done(alone)
        hot_first = 10_000_000
        async with asyncio.TaskGroup() as tasks:
            heating = tasks.create_task(place.flow(hot_first, 100, given.seconds, kind="keyed", key="hot", ms=20))
            beside = await place.flow(alone, given.rate, given.seconds, kind="keyed")
        hot_end = heating.result()
        stopped = time.monotonic()
        while not all(n in place.done_ms for n in range(alone, beside)):
            await asyncio.sleep(0.05)
        took = time.monotonic() - stopped
        done_then = sum(n in place.done_ms for n in range(hot_first, hot_end))
        await place.done(beside + hot_end - hot_first)
        peak = sampler.peak_bytes
    order = [place.done_ms[n] for n in range(hot_first, hot_end)]
    print(
        f"\nhot: {given.rate:g} orders/s of keys of their own, alone and beside one key with 100/s that can take 50/s\n"
    )
    print("| | p50 ms | p99 ms | max ms |\n|---|---|---|---|")
    line("alone", *delays(place.delays(range(number, alone))))
    line("beside the hot key", *delays(place.delays(range(alone, beside))))
    kept = "in their order" if order == sorted(order) else "OUT OF ORDER"
    print(
        f"\nothers were done {took:.1f} s after the last order came, with {hot_end - hot_first - done_then} of the hot key still queued; "
        f"all of these were done, {kept}; peak {peak / MIB:.0f} MiB"
    )


KINDS = {"drain": drain, "burst": burst, "hot": hot}


async def main(given: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(prefix="headrace-backlog-"))
    async with KafkaBroker(steady=True) as broker:
        for kind in given.only.split(","):
            print(f"{kind} ...", file=sys.stderr, flush=True)
            async with placed(f"backlog-{kind}", broker.bootstrap_servers, folder) as place:
                await KINDS[kind](place, given)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__)
    parser.add_argument("--only", default=",".join(KINDS), help="with commas (default: all)")
    parser.add_argument("--orders", type=int, default=100_000, help="that lie there (default: 100000)")
    parser.add_argument("--fresh", type=float, default=50, help="orders a second that come meanwhile (default: 50)")
    parser.add_argument("--rate", type=float, default=100, help="the steady load (default: 100 orders/s)")
    parser.add_argument("--seconds", type=float, default=5, help="of each part (default: 5)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main(options()))
