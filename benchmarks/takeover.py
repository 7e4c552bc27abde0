"""`python -m benchmarks.takeover`: how long a partition stands still when its process dies, leaves or is joined by another; on a real Kafka, under load.

killed      kill -9 of a worker of `serve --workers N`
handed      SIGTERM of such a worker, and its replacement joining: two planned hand-overs
restarted   a single process, killed and started again: from its start
lost        a process that nobody misses but the group: kill -9 without a supervisor, on a machine that does not come back

`--rate 0` is without load: a partition works when it is announced. A fault during which this process itself stood still counts for nothing: the machine did not
turn then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.event_loop import run
from benchmarks.figures import Spread, spread
from benchmarks.order import order_body, order_headers, order_id
from benchmarks.program import Program
from benchmarks.take_over_log import OwnershipLog, longest
from benchmarks.usage import usage
from headrace.topics.client_kafka import KafkaClientSettings
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_kafka import KafkaLog
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker

SOURCES = 8  # partitions of the source topic
PATIENCE_S = 60.0
QUIET_S = 2.0  # between two faults: long enough for gaps to be told apart
STILL_S = 0.25
ROUND = 6  # kills under one supervisor: it waits ever longer before it starts a worker that dies over and over
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
        self.still = Stillness()
        self._servers = servers
        self._folder = folder
        self._programs = 0

    def serve(self, *words: str) -> Program:
        """A `headrace serve` of the app, not started."""
        self._programs += 1
        self._said = self._folder / f"{self.name}.{self._programs}.log"
        return Program(
            [sys.executable, "-m", "headrace", *self._words(), *words],
            log=self._said,
            folder=self._folder,
            environment={"BENCH_ORDERS": f"{self.name}.orders", "BENCH_RESULTS": f"{self.name}.results"},
            talking=False,
        )

    def _words(self) -> list[str]:
        settings = {
            "app.name": self.name,
            "log.partitions": self.given.partitions,
            "kafka.bootstrap_servers": self._servers,
            "api.enabled": "false",
            "telemetry.metrics_port": 0,
            "telemetry.log_level": "info",
            "telemetry.log_format": "json",
        }
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return ["serve", os.fspath(HERE / "app"), "--create-topics", *flags]

    def said(self, event: str, since_ms: float) -> Iterator[tuple[float, dict[str, Any]]]:
        """What the newest program has logged of this kind since then, with its time."""
        for line in self._said.read_text(errors="replace").splitlines():
            if f'"{event}"' in line:
                fields = msgspec.json.decode(line, type=dict[str, Any])
                at_ms = datetime.fromisoformat(fields["timestamp"]).timestamp() * 1000
                if at_ms >= since_ms:
                    yield at_ms, fields

    async def load(self) -> None:
        """Orders, evenly, until cancelled. A rate of 0 is none."""
        if not self.given.rate:
            return
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
        await self.until(
            lambda: all(self.worked_ms(partition, since_ms) is not None for partition in partitions),
            "taken and worked on",
        )

    def worked_ms(self, partition: int, since_ms: float) -> float | None:
        """When it was first worked on by whoever took it since then. Without load that is when it was announced."""
        taken_ms = self.seen.first_taken(partition, since_ms)
        if taken_ms is None or not self.given.rate:
            return taken_ms
        return self.seen.first_worked(partition, taken_ms)


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
        busy = [tasks.create_task(each) for each in (place.seen.follow(), place.load(), place.still.watch())]
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


class Stillness:
    """When this process stood still for longer than it can be busy."""

    def __init__(self) -> None:
        self._ended_ms: list[float] = []

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(STILL_S / 5)
            if time.monotonic() - began > STILL_S:
                self._ended_ms.append(time.time() * 1000)

    def since(self, at_ms: float) -> bool:
        """Whether it stood still at that time, or later."""
        return any(ended_ms >= at_ms for ended_ms in self._ended_ms)


class Table:
    """Durations by what they are of, in milliseconds."""

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}
        self.void = 0  # faults that do not count

    def take(self, other: Table) -> None:
        """Add what another one has."""
        for row, durations in other._rows.items():
            self.add(row, *durations)

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
    for first in range(0, given.times, ROUND):
        async with place.serve("--workers", str(given.workers)):
            await place.shared(given.workers)
            for time_ in range(first, min(first + ROUND, given.times)):
                await _counted(place, table, _kill, time_)


async def _counted(
    place: Place, table: Table, fault: Callable[[Place, Table, int], Awaitable[None]], time_: int
) -> None:
    """One fault; it counts if nothing stood still since a while before."""
    since_ms = time.time() * 1000 - QUIET_S * 1000
    found = Table()
    await fault(place, found, time_)
    if place.still.since(since_ms):
        table.void += 1
    else:
        table.take(found)


async def _kill(place: Place, table: Table, time_: int) -> None:
    given = place.given
    victim = sorted(place.seen.owners())[time_ % given.workers]
    its = place.seen.owned_by(victim)
    others = [pid for pid in place.seen.owners() if pid != victim]
    cpu_s = sum(usage(pid).cpu_s for pid in others)
    at_ms = time.time() * 1000
    os.kill(victim, signal.SIGKILL)
    await place.worked(its, at_ms)
    table.add("killed: CPU of the others meanwhile", (sum(usage(pid).cpu_s for pid in others) - cpu_s) * 1000)
    for partition in its:
        taken_ms, worked_ms = place.seen.first_taken(partition, at_ms), place.worked_ms(partition, at_ms)
        assert taken_ms is not None
        assert worked_ms is not None
        table.add("killed: to announced", taken_ms - at_ms)
        table.add("killed: to the first outcome", worked_ms - at_ms)
    placed = [ms for ms, fields in place.said("group.rebalanced", at_ms) if fields["change"] == "assigned"]
    table.add("killed: to placed anew", min(placed) - at_ms)
    for _, fields in place.said("partition.taken", at_ms):
        if fields["reason"] == "takeover":
            table.add("killed: from placed to taken", fields["duration_ms"])
            table.add("killed: records of a partition replayed (not ms)", fields["records"])
    await place.shared(given.workers)
    _waits(place, table, "killed", its, at_ms)


async def handed(place: Place, table: Table) -> None:
    given = place.given
    for first in range(0, given.times, ROUND):
        async with place.serve("--workers", str(given.workers)):
            await place.shared(given.workers)
            for time_ in range(first, min(first + ROUND, given.times)):
                await _counted(place, table, _hand, time_)


async def _hand(place: Place, table: Table, time_: int) -> None:
    given = place.given
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
            if given.rate:
                table.add("handed: last outcome to the next one", outcome_ms)
    _waits(place, table, "handed", moved, at_ms)


def _waits(place: Place, table: Table, kind: str, moved: set[int], at_ms: float) -> None:
    """While partitions moved: the longest wait of a start for its first outcome, by partition; and of a source record for its start, by source partition.

    For comparison the same in as long a time before.
    """
    now_ms = time.time() * 1000
    span_ms = now_ms - QUIET_S * 1000 - at_ms
    for partition in range(place.given.partitions):
        which = "moved" if partition in moved else "kept"
        _add(table, f"{kind}: longest wait in a {which} partition", longest(place.seen.begun[partition], at_ms, now_ms))
        before = longest(place.seen.begun[partition], at_ms - span_ms, at_ms - 1)
        _add(table, f"{kind}: longest wait in a partition before", before)
    for partition in range(SOURCES):
        routed = place.seen.routed[partition]
        _add(table, f"{kind}: longest wait in a source partition", longest(routed, at_ms, now_ms))
        _add(table, f"{kind}: longest wait in a source partition before", longest(routed, at_ms - span_ms, at_ms - 1))


def _add(table: Table, row: str, found: int | None) -> None:
    if found is not None:
        table.add(row, found)


async def restarted(place: Place, table: Table) -> None:
    everything = range(place.given.partitions)
    for _ in range(max(2, place.given.times // 2) + 1):
        at_ms = time.time() * 1000
        async with place.serve() as process:
            await place.worked(everything, at_ms)
            for partition in everything:
                worked_ms = place.worked_ms(partition, at_ms)
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
    async with KafkaBroker(steady=True) as broker:
        for number, kind in enumerate(given.only.split(",")):
            print(f"{kind} ...", file=sys.stderr, flush=True)
            async with placed(f"takeover{number}", broker.bootstrap_servers, given, folder) as place:
                await KINDS[kind](place, table)
    print(f"{given.workers} workers, {given.partitions} partitions, {given.rate:g} orders/s")
    if table.void:
        print(f"{table.void} faults do not count: the machine stood still")
    table.show()


if __name__ == "__main__":
    run(main(options()))
