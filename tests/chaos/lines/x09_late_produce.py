"""X9: a produce request that was under way when its owner died arrives after the successor's announce, and has no effect."""

import anyio

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Session
from tests.chaos.tcp_proxy import Fault, Kind
from tests.service.end_to_end.waiting import happens

_TRIES = {Scale.CI: 1, Scale.FULL: 6, Scale.LONG: 40}


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """The request waits in the network while its sender is killed and another worker takes over; then it arrives."""
    network = await bench.proxied()
    ways = [(network.port, network.servers), (network.other, network.other_servers)]
    async with Session(network.place, seed=seed) as session:
        old = await session.spawn(servers=ways[0][1]).ready()
        async with session.load(ahead=60):
            for number in range(_TRIES[scale]):
                port, _ = ways[number % 2]
                await session.recorder.refresh()
                before = sum(session.run_log.skipped.values())
                await session.works_more(old, 30)  # and so has something under way
                async with session.fault("late produce") as hit:
                    network.proxy.begin(port, Fault(kind=Kind.HOLD, direction="up"))
                    await anyio.sleep(0.3)  # for what is under way to be caught
                    old.kill()
                    new = session.spawn(servers=ways[(number + 1) % 2][1])
                    await session.works_again(new)
                    network.proxy.heal(port)
                    await session.works(60)
                    hit.fired = await happens(  # unless nothing was under way
                        lambda before=before: sum(session.run_log.skipped.values()) > before, patience_s=20.0
                    )
                old = new
        tally.add(session, await session.verdict())
        tally.note("skipped", dict(session.run_log.skipped))
