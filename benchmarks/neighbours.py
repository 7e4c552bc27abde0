"""What a handler type that hangs costs its neighbours: delays of quick runs, alone, and beside runs of another workflow that all hang.

    python -m benchmarks.neighbours              # 400 slots, which those that hang have taken after two seconds

One service on the embedded log in this process, as the tests do. A quick run does one task; its delay is from the append of its start to the append of its end.
Only the second half of the time is looked at: the slots are taken by then.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.health import Health
from headrace.observability.silent import Silent
from headrace.observability.traces import contexts
from headrace.service import topic_plan
from headrace.service.definitions.app import App
from headrace.service.service import Service
from headrace.service.settings import Settings
from headrace.service.shared import Shared
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.new_event import NewEvent, encode_event

_EVERY_S = 0.02


@handler
async def quickly() -> None: ...


@handler(timeout="10m")
async def for_ever() -> None:
    await asyncio.Event().wait()


@workflow(on=EventTrigger("neighbours.in", "quick"), name="quick")
async def quick(run: Run, _order: dict[str, Any]) -> None:
    await run.call(quickly)


@workflow(on=EventTrigger("neighbours.in", "hang"), name="hangs")
async def hangs(run: Run, _order: dict[str, Any]) -> None:
    await run.call(for_ever)


class Delays(Silent):
    """Of quick runs."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    def run_finished(self, finished: Any, /) -> None:
        if finished.workflow == "quick":
            self.ms.append(finished.duration_ms)


async def measured(arguments: argparse.Namespace, *, hang_per_s: int) -> tuple[list[float], int, int]:
    """Delays of the second half, quick runs that were sent in it, and runs that worked or hung at its end."""
    with tempfile.TemporaryDirectory(prefix="headrace-neighbours-") as folder:
        path = Path(folder) / "log.sqlite"
        settings = Settings.model_validate(
            {
                "app": {"name": "neighbours"},
                "log": {"path": str(path)},
                "telemetry": {"metrics_port": 0},
                "api": {"enabled": False},
                "worker": {"max_active_runs": arguments.slots, "handoff_grace": "10ms"},
            }
        )
        async with EmbeddedLog(path, owner=True) as log:
            wanted = await topic_plan.planned(log, settings, sources=["neighbours.in"])
            await topic_plan.prepare(log, wanted, create=True)
            for each in (quickly, for_ever):
                each.load()
            delays, stop = Delays(), asyncio.Event()
            shared = Shared(
                settings=settings,
                app=App(name="n", root=Path(), modules=(), workflows=(quick, hangs), handlers=(quickly, for_ever)),
                log=log,
                observer=delays,
                contexts=contexts({}),
                instance="neighbours",
                partitions=wanted.runs.partitions,
                listens_to_starts=False,
                dead_letter_bytes={},
            )
            service = Service(shared, Health(), stop)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(service.run())
                while not (service.owners and all(owner.ready.is_set() for owner in service.owners)):
                    await asyncio.sleep(_EVERY_S)
                await sent(log, arguments, hang_per_s, arguments.seconds / 2)
                before = len(delays.ms)
                count = await sent(log, arguments, hang_per_s, arguments.seconds / 2)
                await asyncio.sleep(1)
                active = shared.admission.active_runs
                stop.set()
                await asyncio.wait([task])
            return delays.ms[before:], count, active


async def sent(log: EmbeddedLog, arguments: argparse.Namespace, hang_per_s: int, seconds: float) -> int:
    """Send at both rates for so long. How many quick ones."""
    loop = asyncio.get_running_loop()
    began, quick_sent, hang_sent, turn = loop.time(), 0, 0, 0
    while (elapsed := loop.time() - began) < seconds:
        records: list[NewRecord] = []
        while quick_sent < elapsed * arguments.rate:
            records.append(event("quick", quick_sent))
            quick_sent += 1
        while hang_sent < elapsed * hang_per_s:
            records.append(event("hang", hang_sent))
            hang_sent += 1
        if records:
            await log.publish(TopicPartition("neighbours.in", turn % 8), records)
            turn += 1
        await asyncio.sleep(_EVERY_S)
    return quick_sent


def event(kind: str, n: int) -> NewRecord:
    return encode_event(NewEvent(id=f"{kind}{n}", source="/bench", type=kind, data=b"{}", key=f"k{n}"))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


async def main(arguments: argparse.Namespace) -> None:
    """Measure both and print."""
    print(f"{'':<24}{'quick runs':>12}{'of':>8}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}{'slots used':>12}")
    for title, rate in (("alone", 0), ("beside runs that hang", arguments.hang)):
        ms, count, active = await measured(arguments, hang_per_s=rate)
        figures = (percentile(ms, 0.5), percentile(ms, 0.99), max(ms, default=float("nan")))
        print(f"{title:<24}{len(ms):>12}{count:>8}" + "".join(f"{each:>10.1f}" for each in figures) + f"{active:>12}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=100, help="quick runs a second")
    parser.add_argument("--hang", type=int, default=200, help="runs that hang, a second")
    parser.add_argument("--slots", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=12.0)
    asyncio.run(main(parser.parse_args()))
