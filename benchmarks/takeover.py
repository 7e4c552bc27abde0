"""`python -m benchmarks.takeover`: how long a partition stands still when its process dies, leaves or is joined by another; on a real Kafka, under load.

killed      kill -9 of a worker of `serve --workers N`
handed      SIGTERM of such a worker, and its replacement joining: two planned hand-overs
restarted   a single process, killed and started again: from its start
lost        a process that nobody misses but the group: kill -9 without a supervisor, on a machine that does not come back
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.event_loop import run
from benchmarks.figures import Spread, spread
from benchmarks.order import order_body, order_headers, order_id
from benchmarks.program import Program
from benchmarks.take_over_log import OwnershipLog, longest_gap
from headrace.topics.client_kafka import KafkaClientSettings
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_kafka import KafkaLog
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker

SOURCES = 8  # partitions of the source topic
PATIENCE_S = 60.0
QUIET_S = 2.0  # between two faults: long enough for gaps to be told apart
HERE = Path(__file__).parent


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.takeover", description="How long a partition stands still."
    )
    parser.add_argument("--only", default="killed,handed,restarted,lost", help="with commas (default: all)")
    parser.add_argument("--times", type=int, default=20, help="faults of each kind (default: 20)")
    parser.add_argument("--lost", type=int, default=2, help="lost machines; each takes a session (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--partitions", type=int, default=16, help="of the run log (default: 16)")
    parser.add_argument("--rate", type=float, default=200, help="orders a second (default: 200)")
    parser.add_argument("--keep", type=Path, help="where logs of the processes go")
    return parser.parse_args()


class Place:
    """One app on the broker, with load on it and somebody who reads its run log."""

    def __init__(self, name: str, servers: str, given: argparse.Namespace, folder: Path) -> None:
        self.name = name
        self.given = given
        self.log = KafkaLog(KafkaClientSettings(bootstrap_servers=(servers,)))
        self.seen = OwnershipLog(self.log, f"{name}.runs", given.partitions)
        self._servers = servers
        self._folder = folder
        self._programs = 0

    def serve(self, *words: str) -> Program:
        """A `headrace serve` of the app, not started."""
        self._programs += 1
        return Program(
            [sys.executable, "-m", "headrace", *self._words(), *words],
            log=self._folder / f"{self.name}.{self._programs}.log",
            folder=self._folder,
            environment={"BENCH_ORDERS": f"{self.name}.orders", "BENCH_RESULTS": f"{self.name}.results"},
            talking=False,
        )

    def _words(self) -> list[str]:
        settings = {
            "app.name": self.name,
            "log.partitions": self.given.partitions,
            "kafka.bootstrap_servers": self._servers,
            "telemetry.metrics_port": 0,
            "telemetry.log_level": "info" if self.given.keep else "warning",
        }
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return ["serve", os.fspath(HERE / "app"), "--create-topics", *flags]

    async def load(self) -> None:
        """Orders, evenly, until cancelled."""
        number = 0
        begun = time.monotonic()
        while True:
            due = int((time.monotonic() - begun) * self.given.rate)
            batches: dict[int, list[NewRecord]] = {}
            for order in range(number, due):
                record = NewRecord(
                    value=order_body(order), key=order_id(order).encode(), headers=tuple(order_headers(order))
                )
                batches.setdefault(order % SOURCES, []).append(record)
            number = max(number, due)
            for partition, records in batches.items():
                await self.log.publish(TopicPartition(f"{self.name}.orders", partition), records)
            await asyncio.sleep(0.005)

    async def until(self, look: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not look():
            if time.monotonic() > ends:
                raise TimeoutError(f"{self.name}: not within {PATIENCE_S:g} s: {what}; {self.seen.owners()}")
            await asyncio.sleep(0.01)

    async def shared(self, processes: int) -> None:
        """Every process has its share, and all partitions are worked on."""

        def even() -> bool:
            owners = self.seen.owners()
            sizes = owners.values()
            alive = all(_alive(pid) for pid in owners)
            return len(owners) == processes and 0 not in owners and alive and max(sizes) - min(sizes) <= 1

        await self.until(even, f"{processes} processes share")
        await asyncio.sleep(QUIET_S)

    async def worked(self, partitions: Sequence[int] | set[int], since_ms: float) -> None:
        """All of them were taken by somebody since then, and work."""

        def done() -> bool:
            for partition in partitions:
                taken_ms = self.seen.first_taken(partition, since_ms)
                if taken_ms is None or self.seen.first_worked(partition, taken_ms) is None:
                    return False
            return True

        await self.until(done, "taken and worked on")


@asynccontextmanager
async def placed(name: str, servers: str, given: argparse.Namespace, folder: Path) -> AsyncIterator[Place]:
    place = Place(name, servers, given, folder)
    async with place.log, asyncio.TaskGroup() as tasks:
        await place.log.create(
            [
                TopicSpec(name=f"{name}.orders", partitions=SOURCES),
                TopicSpec(
                    name=f"{name}.runs",
                    partitions=given.partitions,
                    retention_ms=-1,
                    retention_bytes=-1,
                    timestamp_type="LogAppendTime",
                ),
            ]
        )
        busy = [tasks.create_task(place.seen.follow()), tasks.create_task(place.load())]
        try:
            yield place
        finally:
            for task in busy:
                task.cancel()


def _alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return False


class Table:
    """Durations by what they are of, in milliseconds."""

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}

    def add(self, row: str, *durations_ms: float) -> None:
        self._rows.setdefault(row, []).extend(durations_ms)

    def show(self) -> None:
        print("| ms | n | p50 | p95 | p99 | max |\n|---|---|---|---|---|---|")
        for row, durations in self._rows.items():
            found: Spread = spread(durations)
            print(
                f"| {row} | {len(durations)} | {found.p50:.0f} | {found.p95:.0f} | {found.p99:.0f} | {found.max:.0f} |"
            )


async def killed(place: Place, table: Table) -> None:
    given = place.given
    async with place.serve("--workers", str(given.workers)):
        await place.shared(given.workers)
        for time_ in range(given.times):
            victim = sorted(place.seen.owners())[time_ % given.workers]
            its = place.seen.owned_by(victim)
            kept = set(range(given.partitions)) - its
            at_ms = time.time() * 1000
            os.kill(victim, signal.SIGKILL)
            await place.worked(its, at_ms)
            for partition in its:
                taken_ms = place.seen.first_taken(partition, at_ms)
                assert taken_ms is not None
                worked_ms = place.seen.first_worked(partition, taken_ms)
                assert worked_ms is not None
                table.add("killed: to announced", taken_ms - at_ms)
                table.add("killed: to the first outcome", worked_ms - at_ms)
            await place.shared(given.workers)
            _gaps(place, table, "killed", kept, at_ms)


async def handed(place: Place, table: Table) -> None:
    given = place.given
    async with place.serve("--workers", str(given.workers)):
        await place.shared(given.workers)
        for time_ in range(given.times):
            victim = sorted(place.seen.owners())[time_ % given.workers]
            its = place.seen.owned_by(victim)
            at_ms = time.time() * 1000
            os.kill(victim, signal.SIGTERM)
            await place.worked(its, at_ms)
            await place.shared(given.workers)
            moved: set[int] = set()
            for partition in range(given.partitions):
                for announced_ms, outcome_ms in place.seen.pauses(partition, at_ms):
                    moved.add(partition)
                    table.add("handed: released to announced", announced_ms)
                    table.add("handed: last outcome to the next one", outcome_ms)
            _gaps(place, table, "handed", set(range(given.partitions)) - moved, at_ms)


def _gaps(place: Place, table: Table, kind: str, kept: set[int], at_ms: float) -> None:
    """Of partitions that stayed, and of all sources: the longest silence while others moved."""
    now_ms = time.time() * 1000 - QUIET_S * 500
    for partition in kept:
        gap = longest_gap(place.seen.worked[partition], at_ms, now_ms)
        if gap is not None:
            table.add(f"{kind}: longest silence of a kept partition", gap)
    for partition in range(SOURCES):
        gap = longest_gap(place.seen.routed[partition], at_ms, now_ms)
        if gap is not None:
            table.add(f"{kind}: longest silence of a source partition", gap)


async def restarted(place: Place, table: Table) -> None:
    everything = range(place.given.partitions)
    for _ in range(max(2, place.given.times // 2) + 1):
        at_ms = time.time() * 1000
        async with place.serve() as process:
            await place.worked(everything, at_ms)
            for partition in everything:
                taken_ms = place.seen.first_taken(partition, at_ms)
                assert taken_ms is not None
                worked_ms = place.seen.first_worked(partition, taken_ms)
                assert worked_ms is not None
                table.add("restarted: from the start to the first outcome", worked_ms - at_ms)
            await asyncio.sleep(QUIET_S / 2)
            os.kill(process.pid, signal.SIGKILL)
            await place.until(lambda pid=process.pid: not _alive(pid), "dead")


async def lost(place: Place, table: Table) -> None:
    """The other process runs on: nobody restarts the first one, and nobody looks after it."""
    for _ in range(place.given.lost):
        async with place.serve() as one, place.serve() as other:
            await place.shared(2)
            its = place.seen.owned_by(one.pid)
            at_ms = time.time() * 1000
            os.kill(one.pid, signal.SIGKILL)
            await place.worked(its, at_ms)
            for partition in its:
                taken_ms = place.seen.first_taken(partition, at_ms)
                assert taken_ms is not None
                table.add("lost: to announced", taken_ms - at_ms)
            await place.until(lambda: set(place.seen.owners()) == {other.pid}, "the other has all")


KINDS = {"killed": killed, "handed": handed, "restarted": restarted, "lost": lost}


async def main(given: argparse.Namespace) -> None:
    table = Table()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="headrace-takeover-"))
    folder.mkdir(parents=True, exist_ok=True)
    async with KafkaBroker() as broker:
        for number, kind in enumerate(given.only.split(",")):
            print(f"{kind} ...", file=sys.stderr, flush=True)
            async with placed(f"takeover{number}", broker.bootstrap_servers, given, folder) as place:
                await KINDS[kind](place, table)
    print(f"{given.workers} workers, {given.partitions} partitions, {given.rate:g} orders/s")
    table.show()


if __name__ == "__main__":
    run(main(options()))
