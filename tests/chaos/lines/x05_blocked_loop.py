"""X5: a handler blocks the event loop for two sessions: it is named, others take over, and nothing comes of it twice."""

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.program import Job
from tests.chaos.session import Session
from tests.service.end_to_end.waiting import eventually_now

_BLOCKS = {Scale.CI: 1, Scale.FULL: 4, Scale.LONG: 50}
_SESSION_S = 2.0


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Two workers; one blocked handler after the other, wherever it lands."""
    async with Session(await bench.place(), seed=seed, session_s=_SESSION_S) as session:
        workers = [await session.spawn().ready(), await session.spawn().ready()]
        async with session.load(ahead=60) as load:
            for number in range(_BLOCKS[scale]):
                await session.works(100)
                job = Job(id=f"b{number}", group=f"b{number}", program=(("block", int(_SESSION_S * 2000), 0),))
                async with session.fault("blocked loop") as hit:
                    await load.put(job)
                    await eventually_now(
                        lambda job=job: any(e.job == job.id and e.phase == "end" for e in session.sink.effects()),
                        session.story,
                    )
                    blocked = [line for worker in workers for line in worker.lines("loop.blocked")]
                    hit.fired = any(line.get("handler") == "block" for line in blocked)
                await session.works(50)
        verdict = await session.verdict()
        named = sum(line.get("handler") == "block" for worker in workers for line in worker.lines("loop.blocked"))
        if named < _BLOCKS[scale]:
            tally.violations.append(f"X5: {named} of {_BLOCKS[scale]} blocked handlers were named in a warning")
        tally.add(session, verdict)
