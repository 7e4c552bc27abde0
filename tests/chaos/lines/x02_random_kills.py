"""X2: kill -9 at random times under load, and how soon work goes on."""

import random
import signal
import time

import psutil

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Place, Session
from tests.service.end_to_end.waiting import eventually_now

_KILLS = {  # of a process on Kafka, of one on the embedded file, of workers under their supervisor
    Scale.CI: (2, 2, 2),
    Scale.FULL: (70, 190, 70),
    Scale.LONG: (100, 100, 100),
}
_KILLS_A_SESSION = 40
# Patience with a supervisor, which waits half a minute before it starts a worker that dies all the time.
_RESTARTED_S = 120.0


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """A single process, killed and started again, on Kafka; on the embedded file as often; and workers under their supervisor."""
    alone, embedded, supervised = _KILLS[scale]
    await _supervised(await bench.place(), seed, supervised, tally)
    for place, wanted in ((await bench.place(), alone), (Place(), embedded)):
        left, number = wanted, 0
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
                await session.works(rng.randrange(20, 160))
                await session.look_at_positions()
                await session.kill(session.now)
                began = time.time_ns()
                worker = session.spawn()
                await session.works_again(worker)
                first = next(each for each in session.sink.effects() if each.pid == worker.pid)
                tally.sample(f"restart_s_{name}", (first.seen_ns - began) / 1e9)
        tally.add(session, await session.verdict())


async def _supervised(place: Place, seed: int, kills: int, tally: Tally) -> None:
    """One of three workers dies; the others take what was its. How long until each of its partitions has a new owner."""
    rng = random.Random(seed)
    async with Session(place, seed=seed, partitions=12) as session:
        supervisor = session.spawn("--workers", "3")
        async with session.load(ahead=60):
            for _ in range(kills):
                victim = await _one_with_partitions(session, supervisor.pid, rng)
                await session.works(rng.randrange(20, 160))
                mine = [at for at in range(session.partitions) if session.owner_of(at) == victim.pid]
                began_ms = time.time() * 1000
                async with session.fault("kill of a worker") as hit:
                    victim.send_signal(signal.SIGKILL)
                    hit.fired = bool(mine) and session.busy()
                await eventually_now(
                    lambda mine=mine, pid=victim.pid: all(session.owner_of(at) != pid for at in mine), session.story
                )
                for at in mine:
                    after = [each.at_ms for each in session.run_log.taken(at) if each.at_ms > began_ms]
                    if after:  # else it had been handed over just before
                        tally.sample("supervised_take_over_s", (after[0] - began_ms) / 1000)
                await session.look_at_positions()
        tally.add(session, await session.verdict())


async def _one_with_partitions(session: Session, supervisor: int, rng: random.Random) -> psutil.Process:
    """A worker that owns something, once there are three that do."""

    def owning() -> list[psutil.Process]:
        owners = {session.owner_of(at) for at in range(session.partitions)}
        alive = [each for each in psutil.Process(supervisor).children(recursive=True) if each.pid in owners]
        return alive if len(alive) >= 3 else []

    found = await eventually_now(
        owning, lambda: f"three workers that own something: {session.story()}", patience_s=_RESTARTED_S
    )
    return rng.choice(found)
