"""X3: SIGTERM under load: nothing finished is done again, what runs is delivered, no result comes twice, the exit is in time."""

import random
import time

import msgspec

from tests.chaos.judge import Violation
from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job, random_job
from tests.chaos.session import Session

_STOPS = {Scale.CI: 3, Scale.FULL: 10, Scale.LONG: 100}
_GRACE_S = 30.0  # worker.shutdown_grace of these workers: far above what a stop takes, on any machine


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """One app, stopped again and again."""
    rng = random.Random(seed)
    async with Session(
        await bench.place(), seed=seed, worker__handoff_grace="15s", worker__shutdown_grace=f"{_GRACE_S:g}s"
    ) as session:
        late: list[Violation] = []
        await session.spawn().ready()
        async with session.load(ahead=60, make=_without_lingerers):
            for _ in range(_STOPS[scale]):
                await session.works(rng.randrange(100, 400))
                worker = session.now
                began = time.monotonic()
                async with session.fault("SIGTERM") as hit:
                    hit.fired = session.busy()
                    worker.terminate()
                    code = await session.ends(worker)
                taken_s = time.monotonic() - began
                tally.sample("stop_s", taken_s)
                if code != 0 or taken_s > _GRACE_S:
                    late.append(Violation("X3", f"exit code {code} after {taken_s:.1f} s: {worker.stderr[-500:]}"))
                await session.works_again(session.spawn())
        verdict = await session.verdict()
        if verdict.figures.repeated_attempts:
            late.append(Violation("X3", f"{verdict.figures.repeated_attempts} attempts were made again"))
        if verdict.figures.duplicates:
            late.append(Violation("X3", f"{verdict.figures.duplicates} results came twice"))
        tally.add(session, verdict._replace(violations=[*late, *verdict.violations]))


def _without_lingerers(rng: random.Random, number: int) -> Job:
    """A race's loser takes ten minutes: it outlives every grace, and may then be made again."""
    job = random_job(rng, number)
    program = tuple(("call", *rest) if verb == "race" else (verb, *rest) for verb, *rest in job.program)
    return msgspec.structs.replace(job, program=program)
