"""X8: the network between workers and broker: blackhole, lost answers, resets, half a second of delay, a thin line, small pieces."""

import random

import anyio

from tests.chaos.line import Bench, Proxied, Scale, Tally
from tests.chaos.session import Session
from tests.chaos.tcp_proxy import Fault, Kind

_FAULTS = {
    "blackhole": Fault(kind=Kind.HOLD),
    "deaf": Fault(kind=Kind.HOLD, direction="down"),
    "answers lost": Fault(kind=Kind.DROP, direction="down"),
    "500 ms": Fault(kind=Kind.DELAY, amount=0.25),  # there and back
    "thin line": Fault(kind=Kind.SLOW, amount=20_000),
    "slices": Fault(kind=Kind.SLICE, amount=100),
    "reset": Fault(kind=Kind.NONE),
}
_ROUNDS = {Scale.CI: 1, Scale.FULL: 1, Scale.LONG: 10}
_FAULTS_A_ROUND = {Scale.CI: 4, Scale.FULL: len(_FAULTS), Scale.LONG: len(_FAULTS)}
_HELD_S = {
    Scale.CI: (3.0,),
    Scale.FULL: (5.0, 15.0),
    Scale.LONG: (5.0, 30.0, 60.0),
}  # of a blackhole; all others last 3 s


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """One worker behind the proxy, a fault after the other."""
    rng = random.Random(seed)
    network = await bench.proxied()
    async with Session(network.place, seed=seed) as session:
        worker = await session.spawn(servers=network.servers).ready()
        async with session.load(ahead=60):
            for _ in range(_ROUNDS[scale]):
                for name in rng.sample(list(_FAULTS), _FAULTS_A_ROUND[scale]):
                    await session.works(60)
                    held_s = rng.choice(_HELD_S[scale])
                    await _fault(session, network, name, held_s if _FAULTS[name].kind is Kind.HOLD else 3.0)
                    await session.look_at_positions()
        verdict = await session.verdict()
        if worker.process.poll() is not None:
            tally.violations.append(f"X8: the worker ended: {worker.stderr[-1500:]}")
        tally.add(session, verdict)
    tally.note("not_made_here", "30 % loss of packets (needs netem)")


async def _fault(session: Session, network: Proxied, name: str, lasts_s: float) -> None:
    async with session.fault(name) as hit:
        if name == "reset":
            hit.fired = network.proxy.reset(network.port) > 0
        else:
            network.proxy.begin(network.port, _FAULTS[name])
            try:
                await anyio.sleep(lasts_s)  # the fault itself takes its time
            finally:
                hit.fired = network.proxy.heal(network.port) > 0
        await session.works(20)  # until then something may be sent again
