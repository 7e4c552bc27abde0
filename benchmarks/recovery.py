"""How long a killed service needs until it works again, with many open runs; and what a run costs after a long history.

    python -m benchmarks.recovery [--runs 100000] [--backend embedded|kafka|both]
    python -m benchmarks.recovery --history 1000000

The log is written as an owner would have: each run has its start, a finished task and a sleep of ten days; then the process was killed. Three logs: without a
checkpoint, with one at the end, and with one after half of the runs. A real process is started on it and timed until it is ready, and until an order
that lay in its source topic is done.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from benchmarks.engine import announce as engine_announce
from benchmarks.engine import start as engine_start
from benchmarks.engine import state as engine_state
from headrace.service.engine.checkpoint import dump, estimated_bytes, load
from headrace.service.engine.fold import fold, new_state
from headrace.service.log_backend import log_of
from headrace.service.settings import Settings
from headrace.service.topic_plan import planned, prepare
from headrace.topics.command import Start
from headrace.topics.event import EventMeta
from headrace.topics.identity import Coordinates, run_id, start_digest
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.new_event import NewEvent, encode_event
from headrace.topics.outcome import AttemptSucceeded, RunEnded, RunStatus, TimerArmed
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, RunRecord, decode, encode
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.instance import Instance

if TYPE_CHECKING:
    from headrace.service.engine.state import PartitionState
    from headrace.topics.log import Log

APP = Path(__file__).parent / "recovery_app"
PARTITIONS = 8
BATCH = 1_000
TEN_DAYS_MS = 864_000_000
WAIT_S = 300
WRITTEN_MAX = 100  # records of the service: announces, one order, probes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="open runs (default: 100000)")
    parser.add_argument("--backend", choices=("embedded", "kafka", "both"), default="both")
    parser.add_argument("--history", type=int, default=0, help="look at the fold alone, after up to so many ended runs")
    return parser.parse_args()


class Writing:
    """One partition of the run log, as its owner would write it: as fast as the log takes it."""

    def __init__(self, log: Log, at: TopicPartition) -> None:
        self._log = log
        self._at = at
        self._records: list[RunRecord] = []
        self._seq = 0
        self._begun: list[str] = []
        self.state = new_state(
            topic=at.topic, partition=at.partition, partitions=PARTITIONS, client_retention_ms=86_400_000
        )
        self._records.append(Announce("bench", "dead", "dead", f"nonce-{at.partition}", -1, PARTITIONS))

    def _outcome(self, body: AttemptSucceeded | TimerArmed) -> None:
        self._records.append(OutcomeRecord(0, self._seq, body))
        self._seq += 1

    async def open_runs(self, numbers: range) -> None:
        """Starts of the source's records with these offsets, each with a finished task, asleep."""
        now_ms = time.time_ns() // 1_000_000
        for number in numbers:
            identity = Coordinates(
                0, "slow", self._at.partition, number, start_digest("start", "default", "slow"), number
            )
            order = msgspec.json.encode({"id": f"o-{number:07}", "note": "two of these, one of those, by Friday"})
            event = EventMeta(f"e-{number}", "/shop", "slow.order", "slow", self._at.partition, number)
            body = Start("default", "slow", "1", msgspec.Raw(order), event=event, event_at_ms=now_ms)
            self._records.append(CommandRecord(identity, body))
            run = run_id(self._at.partition, identity)
            result = msgspec.Raw(b'"reservation-o-%07d"' % number)
            self._outcome(AttemptSucceeded(run, "/1/reserve", "reserve", 1, result, now_ms, 0.12))
            self._begun.append(run)
            if len(self._records) >= BATCH:
                await self._fall_asleep()
        await self._fall_asleep()

    async def _fall_asleep(self) -> None:
        """A sleep is due by the run's own clock, which the results before it have set."""
        await self.flush()
        for run in self._begun:
            clock_ms = self.state.runs[run].clock_ms
            self._outcome(TimerArmed(run, "/2/sleep", clock_ms + TEN_DAYS_MS, rests_at=1))
        self._begun.clear()
        await self.flush()
        self.state.runs.pack_all()

    async def checkpoint(self) -> int:
        """A whole one, and the trim; its bytes."""
        size = 0
        as_of = self.state.next_offset - 1
        for chunk in dump(self.state):
            self._records.append(OutcomeRecord(0, self._seq, chunk))
            self._seq += 1
            size += len(encode(self._records[-1]))
            await self.flush()
        await self._log.trim(self._at, as_of + 1)
        return size

    async def flush(self) -> None:
        records, self._records = self._records, []
        values = [encode(record) for record in records]
        for first in range(0, len(values), BATCH):
            portion = values[first : first + BATCH]
            appended = await self._log.append(self._at, [NewRecord(value) for value in portion])
            for number, value in enumerate(portion):
                fold(self.state, appended.base_offset + number, appended.timestamp_ms, len(value), decode(value))


async def write(log: Log, settings: Settings, runs: int, checkpoint_after: float) -> str:
    """Make the topics and the log; the size of the checkpoints, for people."""
    topics = await planned(log, settings, sources=["slow", "quick"], outputs=["done"])
    await prepare(log, topics, create=True)
    size = 0
    each = runs // PARTITIONS
    for partition in range(PARTITIONS):
        writing = Writing(log, TopicPartition(f"{settings.app.name}.runs", partition))
        await writing.open_runs(range(round(each * checkpoint_after)))
        if checkpoint_after:
            size += await writing.checkpoint()
        await writing.open_runs(range(round(each * checkpoint_after), each))
    order = NewEvent(id="q-1", source="bench", type="quick.order", data=b'{"id":"q-1"}', key="q-1")
    await log.publish(TopicPartition("quick", 0), [encode_event(order)])
    return f"{size / 1e6:.1f} MB" if size else "none"


class Measured(NamedTuple):
    """Seconds from the start of the process; `slowest_s` is the recovery of the partition that took longest."""

    slowest_s: float
    ready_s: float
    works_s: float
    cpu_s: float
    memory_mb: int


async def measure(settings: Settings, environment: dict[str, str], folder: Path) -> Measured:
    """Start a service on what is there. Raises RuntimeError if it woke the sleeping runs: the log was no owner's then."""
    began = perf_counter()
    instance = Instance(["serve", str(APP)], folder=folder, number=0, environment=environment)
    try:
        async with asyncio.timeout(WAIT_S), log_of(settings, owner=False) as log:
            places = [TopicPartition(f"{settings.app.name}.runs", number) for number in range(PARTITIONS)]
            before = sum(offsets.end for offsets in (await log.offsets(places)).values())
            await instance.started()
            while instance.probe("readyz") != 200:
                await asyncio.sleep(0.02)
            ready_s = perf_counter() - began
            results = [TopicPartition("done", number) for number in range(await log.partitions("done"))]
            while not any(offsets.end for offsets in (await log.offsets(results)).values()):
                await asyncio.sleep(0.02)
            works_s = perf_counter() - began
            written = sum(offsets.end for offsets in (await log.offsets(places)).values()) - before
        if written > WRITTEN_MAX:
            raise RuntimeError(f"{written} records were written by a service that has nothing to do")
        slowest_s = max(line["duration_ms"] for line in instance.lines("partition.taken")) / 1000
        ticks = Path(f"/proc/{instance.pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        rss = next(line for line in Path(f"/proc/{instance.pid}/status").read_text().splitlines() if "VmRSS" in line)
        return Measured(slowest_s, ready_s, works_s, cpu_s, int(rss.split()[1]) // 1024)
    finally:
        instance.kill()


def environment_of(backend: str, folder: Path, servers: str, app: str) -> dict[str, str]:
    return {
        "HEADRACE_APP__NAME": app,
        "HEADRACE_LOG__BACKEND": backend,
        "HEADRACE_LOG__PATH": str(folder / "log.sqlite"),
        "HEADRACE_LOG__PARTITIONS": str(PARTITIONS),
        "HEADRACE_API__ENABLED": "false",
        "HEADRACE_TELEMETRY__METRICS_PORT": "0",
        **({"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": servers} if servers else {}),
    }


def settings_of(backend: str, folder: Path, servers: str, app: str) -> Settings:
    tables = {
        "app": {"name": app},
        "log": {"backend": backend, "path": str(folder / "log.sqlite"), "partitions": PARTITIONS},
        "kafka": {"bootstrap_servers": [servers]} if servers else {},
    }
    return Settings.model_validate(tables)


async def recover(backend: str, runs: int) -> None:
    """Print a line for each log."""
    async with AsyncExitStack() as stack:
        servers = (
            (await stack.enter_async_context(KafkaBroker(steady=True))).bootstrap_servers if backend == "kafka" else ""
        )
        for name, share in (("no checkpoint", 0.0), ("checkpoint at the end", 1.0), ("checkpoint at half", 0.5)):
            folder = Path(tempfile.mkdtemp(prefix="headrace-recovery-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            app = f"bench-{round(share * 10)}"
            settings = settings_of(backend, folder, servers, app)
            async with log_of(settings, owner=True) as log:
                size = await write(log, settings, runs, share)
            found = await measure(settings, environment_of(backend, folder, servers, app), folder)
            print(
                f"{backend:<9} {name:<22} {runs:>9} {size:>10} {found.slowest_s:>10.2f} {found.ready_s:>8.2f} "
                f"{found.works_s:>8.2f} {found.cpu_s:>7.2f} {found.memory_mb:>5}",
                flush=True,
            )


# --- a long history -----------------------------------------------------------------------------------------------------


def history(runs: int) -> None:
    """Fold ended runs, one after the other, and say what each decade costs; then with many open ones beside them."""
    print(f"{'ended runs':>12} {'open':>8} {'us a run':>9} {'state bytes':>12} {'checkpoint ms':>14}")
    for open_runs in (10, 100_000):
        state = engine_state()
        fold(state, 0, 1, 100, engine_announce())
        offset, seq = 1, 0
        for number in range(open_runs):
            fold(state, offset, 1, 500, engine_start(10_000_000 + number))
            offset += 1
        state.runs.pack_all()
        next_print, number = 1_000, 0
        while next_print <= runs:
            portion = [engine_start(number + n) for n in range(1_000)]
            gc.collect()
            began = perf_counter()
            for start in portion:
                offset, seq = one_run(state, start, offset, seq)
            spent = perf_counter() - began
            number += len(portion)
            if number >= next_print:
                at = perf_counter()
                again = load(dump(state), engine_state())
                checkpoint_ms = (perf_counter() - at) * 1000
                assert again == state
                assert len(state.runs) == open_runs
                print(
                    f"{number:>12} {open_runs:>8} {spent / len(portion) * 1e6:>9.1f} {estimated_bytes(state):>12} "
                    f"{checkpoint_ms:>14.0f}",
                    flush=True,
                )
                next_print *= 10


def one_run(state: PartitionState, start: CommandRecord, offset: int, seq: int) -> tuple[int, int]:
    """Its start, four results and its end."""
    run = run_id(0, start.id)
    fold(state, offset, offset, 500, start)
    result = msgspec.Raw(b'"reservation-o-0000001"')
    for step in ("/1/check", "/2/reserve", "/3/invoice", "/4/shipping"):
        offset, seq = offset + 1, seq + 1
        body = AttemptSucceeded(run, step, "check", 1, result, 1_700_000_000_000, 0.12)
        fold(state, offset, offset, 200, OutcomeRecord(0, seq - 1, body))
    offset, seq = offset + 1, seq + 1
    fold(state, offset, offset, 150, OutcomeRecord(0, seq - 1, RunEnded(run, RunStatus.SUCCEEDED)))
    return offset + 1, seq


def main() -> int:
    given = arguments()
    if given.history:
        history(given.history)
        return 0
    print(
        f"{'log':<9} {'':<22} {'open runs':>9} {'checkpoint':>10} {'recovery s':>10} {'ready s':>8} {'works s':>8} "
        f"{'CPU s':>7} {'MB':>5}"
    )
    for backend in ("embedded", "kafka") if given.backend == "both" else (given.backend,):
        asyncio.run(recover(backend, given.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
