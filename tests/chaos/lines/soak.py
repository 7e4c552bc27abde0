"""A soak: a load below what it can do, for long, with checkpoints; memory stays flat."""

import time

import anyio
import psutil

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Session

RATE = 60.0  # jobs a second, some 70 % of what one worker, its broker and the judge do on two cores
_LOOK_S = 2.0
_GROWTH_MAX = 0.10  # of resident memory, from the first to the last third
_GROWTH_MIN_MB = 16.0


async def run_soak(bench: Bench, seconds: float, seed: int, tally: Tally) -> None:
    """`seconds` of load, then the verdict as ever. No fault: so no result may come twice."""
    async with Session(await bench.place(), seed=seed, checkpoint_bytes=512 << 10) as session:
        worker = await session.spawn().ready()
        process = psutil.Process(worker.pid)
        resident: list[float] = []
        async with session.load(ahead=400, rate=RATE):
            ends = time.monotonic() + seconds
            async with session.fault("load") as hit:
                while time.monotonic() < ends:
                    await anyio.sleep(_LOOK_S)
                    resident.append(process.memory_info().rss / 1e6)
                hit.fired = session.run_log.done > 0
        verdict = await session.verdict(patience_s=120)
        third = len(resident) // 3
        first, last = sorted(resident[third : 2 * third])[third // 2], sorted(resident[-third:])[third // 2]
        tally.note("resident_mb_middle_third", round(first, 1))
        tally.note("resident_mb_last_third", round(last, 1))
        tally.note("runs_a_second", round(session.run_log.done / seconds, 1))
        tally.note("trimmed_to", {at[1]: begin for at, begin in (await session.begins()).items()})
        if last - first > max(_GROWTH_MIN_MB, _GROWTH_MAX * first):
            tally.violations.append(f"I15: resident memory grew from {first:.0f} to {last:.0f} MB")
        if verdict.figures.duplicates:
            tally.violations.append(f"I2: {verdict.figures.duplicates} results came twice without any fault")
        tally.add(session, verdict)


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Five minutes, an hour."""
    await run_soak(bench, 3_600.0 if scale is Scale.LONG else 300.0, seed, tally)
