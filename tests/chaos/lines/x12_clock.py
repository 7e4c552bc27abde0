"""X12: a worker's clock jumps, forth and back, an hour and a day: no timer early, none lost. The log's clock is the broker's."""

import random
from pathlib import Path

import msgspec

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job, random_job
from tests.chaos.session import Session

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
_JUMPS_S = (3_600, -3_600, 86_400, -86_400, 300, -300)
_JUMPS = {Scale.CI: 2, Scale.FULL: 6, Scale.LONG: 40}


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """One worker, whose time of day is moved while it works; its monotonic clock is not."""
    found = [file for pattern in _LIBRARIES for file in Path("/").glob(pattern[1:])]
    if not found:
        tally.void = "this machine has no libfaketime (apt-get install libfaketime)"
        return
    rng = random.Random(seed)
    async with Session(await bench.place(), seed=seed) as session:
        session.worker_clock = False
        clock = session.folder / "clock"
        clock.write_text("+0")
        faked = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        worker = await session.spawn(environment=faked).ready()
        now_s = 0
        async with session.load(ahead=60, make=_without_threads):
            for _ in range(_JUMPS[scale]):
                await session.works(60)
                async with session.fault("clock jump") as hit:
                    now_s += rng.choice([jump for jump in _JUMPS_S if now_s + jump])
                    _set(clock, now_s)
                    seen = len(session.sink.effects())
                    await session.works(60)
                    moved = [(each.at_ns - each.seen_ns) / 1e9 for each in session.sink.effects()[seen:]]
                    hit.fired = any(abs(by_s - now_s) < 60 for by_s in moved)
                await session.look_at_positions()
        verdict = await session.verdict()
        if worker.process.poll() is not None:
            tally.violations.append(f"X12: the worker ended: {worker.stderr[-1500:]}")
        tally.add(session, verdict)
    tally.note("timer_late_ms_max", verdict.figures.timer_late_ms_max)


def _without_threads(rng: random.Random, number: int) -> Job:
    """Under libfaketime a thread cannot sleep (EINVAL)."""
    job = random_job(rng, number)
    program = tuple(("call", *rest) if verb == "thread" else (verb, *rest) for verb, *rest in job.program)
    return msgspec.structs.replace(job, program=program)


def _set(clock: Path, seconds: int) -> None:
    """In one step: it is read at every look at the time."""
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}")
    new.rename(clock)
