"""What runs cost that only wait: memory, bytes per run, and what it takes to wake them.

    python -m benchmarks.sleepers 100000                 # on the embedded log
    python -m benchmarks.sleepers 100000 --kafka         # on a real broker that is started and stopped here
    python -m benchmarks.sleepers 10000 --sleep 20       # they wake up after 20 s: what that costs

Each run does one task, then sleeps. One service in this process, started anew for each measurement in a child process, so that what is resident is what the
service needs. Memory is VmRSS of that process; CPU its user and system time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.health import Health
from headrace.observability.silent import Silent
from headrace.observability.traces import contexts
from headrace.service import topic_plan
from headrace.service.definitions.app import App
from headrace.service.log_backend import log_of
from headrace.service.service import Service
from headrace.service.settings import Settings
from headrace.service.shared import Shared
from headrace.topics.log import Log, TopicPartition
from headrace.topics.new_event import NewEvent, encode_event

MIB = 1 << 20
_BATCH = 500


@handler
async def note(n: int) -> int:
    return n


@workflow(on=EventTrigger("sleepers.in", "sleep"), name="sleeper")
async def sleeper(run: Run, order: dict[str, Any]) -> int:
    noted = await run.call(note, order["n"])
    await run.sleep(f"{order['ms']}ms")
    return await run.call(note, noted)


class Finished(Silent):
    """Counts runs that ended."""

    def __init__(self) -> None:
        self.count = 0

    def run_finished(self, finished: Any, /) -> None:
        self.count += 1


def rss_bytes() -> int:
    """What is resident now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def peak_bytes() -> int:
    """The most that was."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system


class Bench:
    """One service over a log with `count` sleepers."""

    def __init__(self, settings: Settings, count: int, sleep_s: float) -> None:
        self.count = count
        self._settings = settings
        self._sleep_ms = round(sleep_s * 1000)
        note.load()
        self._app = App(name="sleepers", root=Path(), modules=(), workflows=(sleeper,), handlers=(note,))

    async def run(self, phase: str) -> dict[str, float]:
        """`sleep`: start them, wait until all sleep. `take`: take over a log where they sleep. Figures of this process."""
        async with AsyncExitStack() as stack:
            log = await stack.enter_async_context(log_of(self._settings, owner=True))
            wanted = await topic_plan.planned(log, self._settings, sources=["sleepers.in"])
            await topic_plan.prepare(log, wanted, create=True)
            finished = Finished()
            shared = Shared(
                settings=self._settings,
                app=self._app,
                log=log,
                observer=finished,
                contexts=contexts({}),
                instance=f"bench-{os.getpid()}",
                partitions=wanted.runs.partitions,
                listens_to_starts=False,
                dead_letter_bytes={},
            )
            stop = asyncio.Event()
            service = Service(shared, Health(), stop)
            began, cpu_before = time.monotonic(), cpu_s()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(service.run())
                figures = await self._measure(phase, log, service, shared, finished, began, cpu_before)
                if phase == "die":
                    print(json.dumps(figures), flush=True)
                    os._exit(0)
                stop.set()
                await asyncio.wait([task])
            return figures

    async def _measure(
        self,
        phase: str,
        log: Log,
        service: Service,
        shared: Shared,
        finished: Finished,
        began: float,
        cpu_before: float,
    ) -> dict[str, float]:
        await self._until(
            lambda: len(service.owners) == shared.partitions and all(o.ready.is_set() for o in service.owners)
        )
        empty_bytes = rss_bytes()
        ready_s = time.monotonic() - began
        if phase != "take":
            began, cpu_before = time.monotonic(), cpu_s()
            await self._publish(log)
        await self._until(lambda: self._asleep(service) + finished.count >= self.count)
        asleep_s, asleep_cpu_s = time.monotonic() - began, cpu_s() - cpu_before
        gc.collect()
        await asyncio.sleep(1)
        figures = {
            "runs": self.count,
            "ready_s": ready_s,
            "asleep_s": asleep_s,
            "asleep_cpu_us_per_run": asleep_cpu_s / self.count * 1e6,
            "empty_mib": empty_bytes / MIB,
            "asleep_mib": rss_bytes() / MIB,
            "bytes_per_run": (rss_bytes() - empty_bytes) / self.count,
            "packed_bytes_per_run": sum(
                len(owner.state.runs.packed_of(run)) for owner in service.owners for run in owner.state.runs
            )
            / max(1, sum(len(owner.state.runs) for owner in service.owners)),
            "timers": len(shared.timers),
        }
        before = cpu_s()
        await asyncio.sleep(2)
        figures["idle_cpu_percent"] = (cpu_s() - before) / 2 * 100
        if self._sleep_ms < 3_600_000:
            cpu_before = cpu_s()
            await self._until(lambda: finished.count >= self.count)
            figures["wake_cpu_us_per_run"] = (cpu_s() - cpu_before) / self.count * 1e6
        figures["peak_mib"] = peak_bytes() / MIB
        return figures

    async def _publish(self, log: Log) -> None:
        partitions = await log.partitions("sleepers.in")
        due_ms = self._sleep_ms
        for first in range(0, self.count, _BATCH):
            records = [
                encode_event(
                    NewEvent(
                        id=f"e{n}", source="/bench", type="sleep", data=b'{"n":%d,"ms":%d}' % (n, due_ms), key=f"k{n}"
                    )
                )
                for n in range(first, min(first + _BATCH, self.count))
            ]
            await log.publish(TopicPartition("sleepers.in", first // _BATCH % partitions), records)

    @staticmethod
    def _asleep(service: Service) -> int:
        return sum(owner.state.runs.packed_counts.total() for owner in service.owners if not owner.runs.live)

    @staticmethod
    async def _until(condition: Any) -> None:
        while not condition():
            await asyncio.sleep(0.02)


def settings_of(folder: Path, servers: str) -> Settings:
    tables: dict[str, Any] = {"app": {"name": "sleepers"}, "telemetry": {"metrics_port": 0}, "api": {"enabled": False}}
    if servers:
        tables |= {"log": {"backend": "kafka"}, "kafka": {"bootstrap_servers": servers}}
    else:
        tables["log"] = {"path": str(folder / "log.sqlite")}
    return Settings.model_validate(tables)


async def child(arguments: argparse.Namespace) -> None:
    """One measurement, in this process."""
    settings = settings_of(Path(arguments.folder), arguments.servers)
    print(json.dumps(await Bench(settings, arguments.count, arguments.sleep).run(arguments.phase)), flush=True)


async def measured(phase: str, folder: str, servers: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The same in a child."""
    command = ("--phase", phase, "--folder", folder, "--servers", servers, "--sleep", str(arguments.sleep))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sleepers", str(arguments.count), *command, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return json.loads(out.splitlines()[-1])


async def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-sleepers-"))
        servers = ""
        if arguments.kafka:
            from tests.kafka_broker.broker import KafkaBroker  # noqa: PLC0415 - only where one is wanted

            broker = await stack.enter_async_context(KafkaBroker(steady=True))
            servers = broker.bootstrap_servers
        report("started, asleep", await measured("die", folder, servers, arguments))
        report("taken over after kill -9", await measured("take", folder, servers, arguments))


def report(title: str, figures: dict[str, float]) -> None:
    print(title)
    for name, value in figures.items():
        print(f"    {name:<24} {value:12,.1f}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--sleep", type=float, default=86_400.0, help="seconds; a day and more: nobody wakes up here")
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--phase", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--servers", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parsed()
    asyncio.run(child(chosen) if chosen.phase else main(chosen))
