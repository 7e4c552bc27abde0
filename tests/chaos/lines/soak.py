"""A soak: a load below what it can do, for long, with checkpoints; memory stays flat.

Growth is judged by the run: resident memory against runs that are done, in the second half. What is kept of starts to drop their repeats grows by some 150
bytes a run until it is pruned the first time, after 32 000 runs of this load; a leak of 1 KB a run comes on top of it.
"""

import random
import time
from itertools import combinations
from statistics import median

import anyio
import msgspec
import psutil

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job, random_job
from tests.chaos.session import Session

RATE = 60.0  # jobs a second
_LIGHT_RATE = 40.0
_LOOK_S = 2.0
_WARM = 1 / 2  # of the time: pools, code paths and caches fill
_GROWTH_MAX = 600.0  # bytes a run
_POINTS_MAX = 200  # of the slope


async def run_soak(
    bench: Bench, seconds: float, seed: int, tally: Tally, *, light: bool = False, leak_bytes: int = 0
) -> None:
    """`seconds` of load, then the verdict as ever. No fault: so no result may come twice. `light`: nine of ten runs are one call."""
    async with Session(
        await bench.place(), seed=seed, checkpoint_bytes=512 << 10, runs__retry_retention="10s"
    ) as session:
        leaky = {"CHAOS_LEAK_BYTES": str(leak_bytes)} if leak_bytes else {}
        worker = await session.spawn(environment=leaky).ready()
        process = psutil.Process(worker.pid)
        looks: list[tuple[int, int]] = []  # runs done, resident bytes
        async with session.load(
            ahead=400, rate=_LIGHT_RATE if light else RATE, make=_light_job if light else random_job
        ):
            began = time.monotonic()
            async with session.fault("load") as hit:
                while time.monotonic() < began + seconds:
                    await anyio.sleep(_LOOK_S)
                    if time.monotonic() > began + _WARM * seconds:
                        looks.append((session.run_log.done, process.memory_info().rss))
                hit.fired = session.run_log.done > 0
            cpu_s = sum(process.cpu_times()[:2])
        verdict = await session.verdict(patience_s=120)
        growth = slope(looks)
        tally.note("resident_mb", [round(rss / 1e6, 1) for _, rss in (looks[0], looks[len(looks) // 2], looks[-1])])
        tally.note("growth_bytes_a_run", round(growth, 1))
        tally.note("runs_a_second", round(session.run_log.done / seconds, 1))
        tally.note("worker_cpu", round(cpu_s / seconds, 3))
        tally.note("trimmed_to", {at[1]: begin for at, begin in (await session.begins()).items()})
        if growth > _GROWTH_MAX:
            tally.violations.append(f"I15: resident memory grows by {growth:.0f} bytes a run")
        if verdict.figures.duplicates:
            tally.violations.append(f"I2: {verdict.figures.duplicates} results came twice without any fault")
        tally.add(session, verdict)


def slope(points: list[tuple[int, int]]) -> float:
    """The median of the slopes between all pairs that are a third of the way apart: single steps, up or down, do not move it."""
    points = points[:: max(1, len(points) // _POINTS_MAX)]
    apart = (points[-1][0] - points[0][0]) / 3
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] - a[0] >= apart > 0)


def _light_job(rng: random.Random, number: int) -> Job:
    job = random_job(rng, number)
    return job if number % 10 == 0 else msgspec.structs.replace(job, turn=False, program=(("call", 0, 0),))


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Five minutes, an hour."""
    await run_soak(bench, 3_600.0 if scale is Scale.LONG else 300.0, seed, tally, light=scale is Scale.CI)
