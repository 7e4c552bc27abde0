"""X4: a worker is stopped past its session and goes on: what it still believes to own, others own. It does no harm."""

import random
import signal

import anyio

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Session
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.waiting import eventually_now

_STOPS = {Scale.CI: 1, Scale.FULL: 5, Scale.LONG: 50}
_SESSION_S = 2.0


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Two workers, one of them stopped for 1.5 to 3 sessions, by turns."""
    rng = random.Random(seed)
    async with Session(await bench.place(), seed=seed, session_s=_SESSION_S) as session:
        workers = [await session.spawn().ready(), await session.spawn().ready()]
        async with session.load(ahead=60):
            for number in range(_STOPS[scale]):
                zombie = workers[number % 2]
                await session.works_more(zombie, 20)
                await _stop_and_continue(session, zombie, rng.uniform(1.5, 3.0) * _SESSION_S)
                await session.look_at_positions()
                await session.works(100)
        verdict = await session.verdict()
        for worker in workers:
            if worker.process.poll() is not None:
                tally.violations.append(f"X4: a worker ended: {worker.process.poll()} {worker.stderr[-1500:]}")
        tally.note("stale_records", dict(session.run_log.skipped))
        tally.add(session, verdict)


async def _stop_and_continue(session: Session, zombie: Instance, stopped_s: float) -> None:
    """It fired if the others took over what was the zombie's while it stood still."""
    await session.recorder.refresh()
    mine = {at for at in range(session.partitions) if session.owner_of(at) == zombie.pid}
    async with session.fault("SIGSTOP") as hit:
        zombie.process.send_signal(signal.SIGSTOP)
        try:
            await anyio.sleep(stopped_s)  # the fault itself takes its time
            if mine:
                await eventually_now(
                    lambda: all(session.owner_of(at) != zombie.pid for at in mine),
                    lambda: f"{mine} taken over; owners {[session.owner_of(at) for at in range(session.partitions)]}",
                )
                hit.fired = True
        finally:
            zombie.process.send_signal(signal.SIGCONT)
