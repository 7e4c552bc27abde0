"""X7: brokers answer with errors: twelve APIs, eight errors each, once, in a burst and for some seconds. What was asked for has been done all the same."""

import random

import anyio

from tests.chaos.error_proxy import ErrorProxy
from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Hit, Place, Session
from tests.kafka_broker.broker import KafkaBroker, free_port
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.waiting import eventually_now

_TOPIC_ERRORS = (-1, 3, 5, 6, 7, 13, 19, 56)
_GROUP_ERRORS = (-1, 7, 14, 15, 16, 22, 25, 27)
_APIS = {  # name: key, errors
    "Produce": (0, (-1, 3, 6, 7, 19, 20, 45, 56)),
    "Fetch": (1, (-1, 3, 5, 6, 56, 70, 71, 74)),
    "ListOffsets": (2, _TOPIC_ERRORS),
    "Metadata": (3, _TOPIC_ERRORS),
    "OffsetCommit": (8, (-1, 3, 7, 14, 15, 16, 22, 25)),
    "OffsetFetch": (9, (-1, 3, 7, 14, 15, 16, 22, 25)),
    "FindCoordinator": (10, (-1, 7, 13, 14, 15, 16, 41, 56)),
    "JoinGroup": (11, _GROUP_ERRORS),
    "Heartbeat": (12, _GROUP_ERRORS),
    "LeaveGroup": (13, _GROUP_ERRORS),
    "SyncGroup": (14, _GROUP_ERRORS),
    "InitProducerId": (22, (-1, 7, 14, 15, 16, 41, 51, 56)),
}
_AT_WORK = {
    "Produce",
    "Fetch",
    "OffsetCommit",
    "Heartbeat",
}  # asked all the time; the others when a worker comes or goes
_TIMES = {"once": 1, "burst": 5, "lasting": -1}
_LASTS_S = 3.0
_COMBINATIONS = {Scale.CI: 4, Scale.FULL: 48, Scale.LONG: 288}


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """One worker stays, behind the proxy. A second one comes and goes where that is what asks."""
    rng = random.Random(seed)
    drawn: list[tuple[str, int, str]] = []
    for name, (_, codes) in _APIS.items():
        for code in codes:  # each error of each API: some, one way; or all, all ways
            ways = [rng.choice(list(_TIMES))] if scale is Scale.FULL else list(_TIMES)
            drawn += [(name, code, how) for how in ways]
    rng.shuffle(drawn)
    told, behind = free_port(), free_port()
    fired: dict[str, int] = dict.fromkeys(_APIS, 0)
    async with KafkaBroker(advertised={told: behind}) as broker:
        proxy = ErrorProxy({told: behind})
        try:
            async with Session(Place(broker.bootstrap_servers), seed=seed, session_s=3.0) as session:
                worker = await session.spawn(servers=f"127.0.0.1:{told}").ready()
                async with session.load(ahead=60):
                    for name, code, how in drawn[: _COMBINATIONS[scale]]:
                        await session.works(40)
                        async with session.fault(f"{name} {code} {how}") as hit:
                            await _fault(session, proxy, told, name, code, how, hit)
                            await session.works(20)  # until then something may be sent again
                        fired[name] += hit.fired
                        if worker.process.poll() is not None:
                            tally.violations.append(
                                f"X7: {name} {code} {how} ended the worker: {worker.stderr[-1500:]}"
                            )
                            worker = await session.spawn(servers=f"127.0.0.1:{told}").ready()
                        await session.look_at_positions()
                verdict = await session.verdict()
                for each in session.instances:
                    if "Traceback" in each.stderr:
                        tally.violations.append(f"X7: a worker ended in disorder: {each.stderr[-1500:]}")
                tally.add(session, verdict)
        finally:
            proxy.close()
    tally.note("fired_by_api", {name: count for name, count in fired.items() if count})


async def _fault(session: Session, proxy: ErrorProxy, port: int, name: str, code: int, how: str, hit: Hit) -> None:
    """Under the fault, what asks for it."""
    second = None
    hits = 0
    proxy.begin(_APIS[name][0], code, _TIMES[how])
    try:
        if name not in _AT_WORK:
            second = session.spawn(servers=f"127.0.0.1:{port}")
        if how == "lasting":
            await anyio.sleep(_LASTS_S)  # the fault itself takes its time
        elif second is not None:
            await _ready_or_over(second)
        else:
            await session.works(60)
        if second is not None and name == "LeaveGroup":
            second.terminate()
            await session.ends(second)
    finally:
        hits = proxy.heal()
    if second is not None:
        await _ready_or_over(second)
        second.terminate()
        await session.ends(second)
    hit.fired = hits > 0


async def _ready_or_over(worker: Instance) -> None:
    """It is ready, or has ended because of what it was told."""
    await eventually_now(
        lambda: (
            worker.process.poll() is not None or ("  metrics  http" in worker.stderr and worker.probe("readyz") == 200)
        ),
        lambda: worker.stderr[-2000:],
    )
