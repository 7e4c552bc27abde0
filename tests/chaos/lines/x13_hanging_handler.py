"""X13: one type of handler hangs, always: the others go on, and do not get much slower."""

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job
from tests.chaos.run_log import RunLog
from tests.chaos.session import Session
from tests.service.end_to_end.waiting import happens

_HANGING = 150  # of 200 slots: one workflow has at most half of them while others wait
_EFFECTS = {Scale.CI: 400, Scale.FULL: 1_200, Scale.LONG: 8_000}
_RATE = 40.0  # jobs a second: far below what it can do, so that only the hanging ones make them wait
_TIMES_MAX = 2.0


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """The same load before and while they hang; p99 of start to end by the log."""
    async with Session(await bench.place(), seed=seed) as session:
        await session.spawn().ready()
        async with session.load(ahead=60, rate=_RATE) as load:
            await session.works(_EFFECTS[scale])
            await session.recorder.refresh()
            before, first = _p99_ms(session.run_log, 0)
            async with session.fault("hanging handlers") as hit:
                session.hanging = _HANGING
                for number in range(_HANGING):
                    await load.put(Job(id=f"h{number}", group=f"h{number}", program=(("hang", 0, 0),)))
                await session.works(_EFFECTS[scale])
                await session.recorder.refresh()
                hit.fired = await happens(
                    lambda: _hung(session) == _HANGING
                )  # while others wait they have half of the slots
            during, _ = _p99_ms(session.run_log, first)
        verdict = await session.verdict()
        tally.note("p99_ms_before", before)
        tally.note("p99_ms_while_hanging", during)
        if scale is not Scale.CI and during > _TIMES_MAX * before:
            tally.violations.append(f"X13: p99 rose from {before} to {during} ms")
        tally.add(session, verdict)


def _hung(session: Session) -> int:
    return len({each.run for each in session.sink.effects() if each.job.startswith("h")})


def _p99_ms(log: RunLog, since_ms: int) -> tuple[int, int]:
    """Of jobs that began after a time; and when the newest began."""
    took = sorted(
        run.over_ms - run.at_ms
        for run in log.runs.values()
        if run.ended and run.at_ms > since_ms and run.workflow == "jobs"
    )
    return took[int(len(took) * 0.99)], max(run.at_ms for run in log.runs.values())
