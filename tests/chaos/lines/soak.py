"""A soak: a load below what it can do, for long, with checkpoints; memory stays flat.

Load and rest in turn: at each rest everything is done, and the worker says what it has in use (a resident size has waves,
and the steps that they leave). Growth is judged by the run, from the first rest to the last: `_GROWTH_MAX` is for what fills up at the
beginning, of which a short soak sees most.
Over an hour the resident size may not grow by more than `_RESIDENT_MAX` either.
"""

import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import anyio
import msgspec
import psutil

from tests.chaos.judge import NO_FAULT
from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job, random_job
from tests.chaos.session import Session
from tests.chaos.worker import COUNTED
from tests.service.end_to_end.waiting import eventually_now

RATE = 140.0  # jobs a second
_LIGHT_RATE = 40.0
_PART_S = 300.0  # of load, then a rest
_PARTS_MIN = 3
_GROWTH_MAX = 600.0  # bytes a run
_RESIDENT_MAX = 1.1
_LONG_S = 1_800.0


class Rest(NamedTuple):
    """What the worker holds while nothing is open."""

    done: int  # runs
    in_use: int  # bytes, allocated and not given back; no garbage, no caches of a fixed size
    resident: int  # bytes


async def run_soak(
    bench: Bench, seconds: float, seed: int, tally: Tally, *, light: bool = False, leak_bytes: int = 0
) -> None:
    """`seconds` of load, then the verdict as ever. No fault: so no result may come twice. `light`: nine of ten runs are one call."""
    async with Session(
        await bench.place(), seed=seed, checkpoint_bytes=512 << 10, runs__retry_retention="10s"
    ) as session:
        memory = session.folder / "memory"
        hands = {"CHAOS_MEMORY": os.fspath(memory), **COUNTED}
        hands |= {"CHAOS_LEAK_BYTES": str(leak_bytes)} if leak_bytes else {}
        worker = await session.spawn(environment=hands).ready()
        process = psutil.Process(worker.pid)
        rests: list[Rest] = []
        load = session.load(ahead=400, rate=_LIGHT_RATE if light else RATE, make=_light_job if light else random_job)
        parts = max(_PARTS_MIN, round(seconds / _PART_S))
        async with session.fault(NO_FAULT) as hit:
            for _ in range(parts):
                async with load:
                    await anyio.sleep(seconds / parts)
                await session.rest()
                rests.append(Rest(session.run_log.done, await _in_use(worker.pid, memory), process.memory_info().rss))
            hit.fired = session.run_log.done > 0
        tally.note("in_use_mb", " ".join(f"{rest.in_use / 1e6:.1f}" for rest in rests))
        tally.note("resident_mb", " ".join(f"{rest.resident / 1e6:.1f}" for rest in rests))
        tally.note("growth_bytes_a_run", round(growth(rests), 1))
        tally.note("runs_a_second", round(session.run_log.done / seconds, 1))
        tally.note("worker_cpu", round(sum(process.cpu_times()[:2]) / (time.time() - process.create_time()), 3))
        tally.note("trimmed_to", {at[1]: begin for at, begin in (await session.begins()).items()})
        if growth(rests) > _GROWTH_MAX:
            tally.violations.append(f"I15: memory in use grows by {growth(rests):.0f} bytes a run")
        if seconds >= _LONG_S and rests[-1].resident > rests[0].resident * _RESIDENT_MAX:
            tally.violations.append(
                f"I15: resident memory grows from {rests[0].resident} to {rests[-1].resident} bytes"
            )
        verdict = await session.verdict(patience_s=120)
        if verdict.figures.duplicates:
            tally.violations.append(f"I2: {verdict.figures.duplicates} results came twice without any fault")
        tally.add(session, verdict)


def growth(rests: list[Rest]) -> float:
    """Bytes a run, from the first rest to the last."""
    return (rests[-1].in_use - rests[0].in_use) / (rests[-1].done - rests[0].done)


async def _in_use(pid: int, said: Path) -> int:
    said.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    await eventually_now(said.exists, f"worker {pid} to say what it has in use")
    return int(said.read_text())


def _light_job(rng: random.Random, number: int) -> Job:
    job = random_job(rng, number)
    return job if number % 10 == 0 else msgspec.structs.replace(job, turn=False, program=(("call", 0, 0),))


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Five minutes, an hour."""
    await run_soak(bench, 3_600.0 if scale is Scale.LONG else 300.0, seed, tally, light=scale is Scale.CI)
