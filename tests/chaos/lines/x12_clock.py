"""X12: a worker's time of day is set, ahead and behind by turns, by minutes, an hour, a day: no timer early, none lost. The log's clock is the broker's.

Beyond the sample a second worker's clock is five minutes ahead all the time, and the first one's runs too fast in the end.
"""

import random
from pathlib import Path

import msgspec

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job, random_job
from tests.chaos.session import Session
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.waiting import happens

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
_AWAY_S = (300, 3_600, 86_400)
_JUMPS = {Scale.CI: 2, Scale.FULL: 6, Scale.LONG: 40}
_BETWEEN_S = 300  # two instances
_SPEED = 1.2
_DRIFT_S = 0.3  # that a clock which runs too fast must show


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """The time of day is moved while they work; the monotonic clock is not."""
    library = next((file for pattern in _LIBRARIES for file in Path("/").glob(pattern[1:])), None)
    if library is None:
        tally.void = "this machine has no libfaketime (apt-get install libfaketime)"
        return
    rng = random.Random(seed)
    async with Session(await bench.place(), seed=seed) as session:
        session.worker_clock = False
        clock = session.folder / "clock"
        worker = await _worker(session, library, clock, "+0").ready()
        if scale is not Scale.CI:
            await _worker(session, library, session.folder / "ahead", f"{_BETWEEN_S:+d}").ready()
        async with session.load(ahead=60, make=_without_threads):
            for number in range(_JUMPS[scale]):
                await session.works_more(worker, 60)
                await _jump(session, worker, clock, rng.choice(_AWAY_S) * (-1 if number % 2 else 1))
                await session.look_at_positions()
            if scale is not Scale.CI:
                await _slew(session, worker, clock)
        verdict = await session.verdict()
        for each in session.instances:
            if each.process.poll() is not None:
                tally.violations.append(f"X12: a worker ended: {each.stderr[-1500:]}")
        tally.add(session, verdict)
    tally.note("timer_late_ms_max", verdict.figures.timer_late_ms_max)


def _worker(session: Session, library: Path, clock: Path, says: str) -> Instance:
    _set(clock, says)
    return session.spawn(
        environment={
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
    )


async def _jump(session: Session, worker: Instance, clock: Path, away_s: int) -> None:
    """From now on it is so far from the truth. It fired if attempts have seen it."""
    async with session.fault("clock jump") as hit:
        seen = len(session.sink.effects())
        _set(clock, f"{away_s:+d}")
        hit.fired = await happens(lambda: any(abs(by_s - away_s) < 60 for by_s in _away_s(session, worker, seen)))
        await session.works_more(worker, 60)


async def _slew(session: Session, worker: Instance, clock: Path) -> None:
    """It runs too fast. It fired if what attempts see moves on."""
    async with session.fault("clock slew") as hit:
        _set(clock, f"+0 x{_SPEED}")
        await session.works_more(worker, 60)  # what began before has been told
        seen = len(session.sink.effects())

        def drifts() -> bool:
            away_s = _away_s(session, worker, seen)
            return bool(away_s) and away_s[-1] - away_s[0] > _DRIFT_S

        hit.fired = await happens(drifts)


def _away_s(session: Session, worker: Instance, since: int) -> list[float]:
    """How far the worker's clock was from the sink's, by effect."""
    return [(each.at_ns - each.seen_ns) / 1e9 for each in session.sink.effects()[since:] if each.pid == worker.pid]


def _without_threads(rng: random.Random, number: int) -> Job:
    """Under libfaketime a thread cannot sleep (EINVAL)."""
    job = random_job(rng, number)
    program = tuple(("call", *rest) if verb == "thread" else (verb, *rest) for verb, *rest in job.program)
    return msgspec.structs.replace(job, program=program)


def _set(clock: Path, says: str) -> None:
    """In one step: it is read at every look at the time."""
    new = clock.with_suffix(".new")
    new.write_text(says)
    new.rename(clock)
