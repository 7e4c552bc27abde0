"""X2: kill -9 at random times under load, and how soon work goes on."""

import random
import time

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Place, Session

_KILLS = {Scale.CI: 6, Scale.FULL: 100}
_KILLS_A_SESSION = 25
RESTART_S = 3.0  # the aim: a single process works again so soon after it was started


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """A single process, killed and started again, on Kafka; on the embedded file as often."""
    for place in (await bench.place(), Place()):
        left, number = _KILLS[scale], 0
        while left > 0:
            kills = min(left, _KILLS_A_SESSION)
            await _session(place, seed + number, kills, tally)
            left, number = left - kills, number + 1


async def _session(place: Place, seed: int, kills: int, tally: Tally) -> None:
    rng = random.Random(seed)
    name = "kafka" if place.servers else "embedded"
    async with Session(place, seed=seed) as session:
        await session.spawn().ready()
        async with session.load(ahead=60):
            for _ in range(kills):
                await session.works(rng.randrange(40, 400))
                await session.look_at_positions()
                await session.kill(session.now)
                began = time.time_ns()
                worker = session.spawn()
                await session.works_again(worker)
                first = next(each for each in session.sink.effects() if each.pid == worker.pid)
                tally.sample(f"restart_s_{name}", (first.seen_ns - began) / 1e9)
        tally.add(session, await session.verdict())
