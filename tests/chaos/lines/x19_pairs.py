"""X19: two faults at once, drawn by the seed, with quiet gaps."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

import anyio

from tests.chaos.line import Bench, Proxied, Scale, Tally
from tests.chaos.session import Hit, Session
from tests.chaos.tcp_proxy import Fault, Kind

_PAIRS = {Scale.CI: 1, Scale.FULL: 5, Scale.LONG: 60}
_LASTS_S = 3.0
_SESSION_S = 2.0

Deed = Callable[[Session, Proxied, Hit], Awaitable[None]]


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Two workers, each on its own way to the broker."""
    rng = random.Random(seed)
    network = await bench.proxied()
    drawn: list[str] = []
    async with Session(network.place, seed=seed, session_s=_SESSION_S) as session:
        await session.spawn(servers=network.servers).ready()
        await session.spawn(servers=network.other_servers).ready()
        async with session.load(ahead=60):
            for _ in range(_PAIRS[scale]):
                await session.works(60)
                pair = rng.sample(list(_DEEDS), 2)
                drawn.append(" and ".join(pair))
                async with asyncio.TaskGroup() as group:
                    for name in pair:
                        group.create_task(_do(session, network, name))
                await session.works(60)  # the quiet gap
                await session.look_at_positions()
        tally.add(session, await session.verdict())
    tally.note("pairs", "; ".join(drawn))


async def _do(session: Session, network: Proxied, name: str) -> None:
    async with session.fault(name) as hit:
        await _DEEDS[name](session, network, hit)
        await session.works(20)  # until then something may be sent again


async def _killed(session: Session, network: Proxied, hit: Hit) -> None:
    """The newest worker, and another in its place."""
    hit.fired = session.busy()
    session.now.kill()
    await anyio.sleep(_LASTS_S / 3)
    session.spawn(servers=network.other_servers)


async def _stopped(session: Session, network: Proxied, hit: Hit) -> None:
    """The first worker, past its session."""
    worker = session.instances[0]
    hit.fired = session.busy()
    worker.process.send_signal(signal.SIGSTOP)
    await anyio.sleep(_SESSION_S * 2)
    worker.process.send_signal(signal.SIGCONT)


async def _broker_killed(session: Session, network: Proxied, hit: Hit) -> None:
    hit.fired = session.busy()
    network.broker.kill()
    await network.broker.start()


async def _cut_off(session: Session, network: Proxied, hit: Hit) -> None:
    """The first worker's way."""
    network.proxy.begin(network.port, Fault(kind=Kind.HOLD))
    await anyio.sleep(_LASTS_S)
    hit.fired = network.proxy.heal(network.port) > 0


async def _answers_lost(session: Session, network: Proxied, hit: Hit) -> None:
    """The other's."""
    network.proxy.begin(network.other, Fault(kind=Kind.DROP, direction="down"))
    await anyio.sleep(_LASTS_S)
    hit.fired = network.proxy.heal(network.other) > 0


_DEEDS: dict[str, Deed] = {
    "kill": _killed,
    "zombie": _stopped,
    "broker kill": _broker_killed,
    "cut off": _cut_off,
    "answers lost": _answers_lost,
}
