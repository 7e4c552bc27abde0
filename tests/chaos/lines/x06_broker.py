"""X6: the broker goes away: restarted in order, killed, and one node after the other of three."""

import random

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Place, Session
from tests.kafka_broker.cluster import NODES

_ALONE = {Scale.CI: 1, Scale.FULL: 3, Scale.LONG: 20}  # clean restarts, and as many kills
_NODES_A_ROUND = {Scale.CI: 1, Scale.FULL: NODES, Scale.LONG: NODES}
_ROLLING = {Scale.CI: 1, Scale.FULL: 1, Scale.LONG: 7}  # rounds: each node once, killed or restarted


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """One node under one worker, then three nodes under two."""
    await _alone(bench, scale, seed, tally)
    await _rolling(bench, scale, seed, tally)


async def _alone(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    broker = await bench.broker()
    async with Session(Place(broker.bootstrap_servers), seed=seed) as session:
        worker = await session.spawn().ready()
        async with session.load(ahead=60):
            for _ in range(_ALONE[scale]):
                for clean in (True, False):
                    await session.works(100)
                    async with session.fault("restart" if clean else "kill") as hit:
                        hit.fired = session.busy()
                        if clean:
                            await broker.stop()
                        else:
                            broker.kill()
                        await broker.start()
                        await session.works(20)  # until then something may be sent again
                    await session.look_at_positions()
        verdict = await session.verdict()
        if worker.process.poll() is not None:
            tally.violations.append(f"X6: the worker ended: {worker.stderr[-1500:]}")
        tally.add(session, verdict)


async def _rolling(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    rng = random.Random(seed)
    cluster = await bench.cluster()
    place = Place(cluster.bootstrap_servers, replication=NODES)
    async with Session(place, seed=seed, log__replication=NODES) as session:
        workers = [await session.spawn().ready(), await session.spawn().ready()]
        async with session.load(ahead=60):
            for _ in range(_ROLLING[scale]):
                for node in rng.sample(list(cluster.nodes), _NODES_A_ROUND[scale]):
                    await session.works(100)
                    clean = rng.random() < 0.4
                    async with session.fault("node restart" if clean else "node kill") as hit:
                        hit.fired = session.busy()
                        if clean:
                            await node.stop()
                        else:
                            node.kill()
                        await session.works(60)  # two nodes do the work of three
                        await node.start()
                        await cluster.in_sync([session.topic("runs"), session.topic("in"), session.topic("results")])
                        await session.works(20)  # until then something may be sent again
        verdict = await session.verdict()
        for worker in workers:
            if worker.process.poll() is not None:
                tally.violations.append(f"X6: a worker ended: {worker.stderr[-1500:]}")
        tally.add(session, verdict)
