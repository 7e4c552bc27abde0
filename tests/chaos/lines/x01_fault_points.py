"""X1: kill -9 at each named fault point: the next worker is armed with the next point, under load all the time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from headrace.service.fault_point import FaultPoint
from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.load import Load
from tests.chaos.program import Job
from tests.chaos.session import Session
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.instance import Instance, run
from tests.service.end_to_end.waiting import eventually_now

_ROUNDS = {Scale.CI: 1, Scale.FULL: 3, Scale.LONG: 12}
_POINTS_MAX = {Scale.CI: 12, Scale.FULL: 1_000, Scale.LONG: 1_000}  # a sample of them by the seed; all on demand
_PATIENCE_S = 10.0  # of work; how long a worker takes to start is the machine's affair
_LEAVING = {
    FaultPoint.STOPPING,
    FaultPoint.ROUTER_STOPPED,
    FaultPoint.OUTPUTS_HOME,
    FaultPoint.RELEASED,
    FaultPoint.RESULT_DELIVERING,
    FaultPoint.GRACE_OVER,
    FaultPoint.FLUSHED,
}
_RARE = {  # passed once, or now and then: the first time is the one
    *_LEAVING,
    FaultPoint.CANCEL_READ,
    FaultPoint.RUN_PARKING,
    FaultPoint.OUTPUT_REFUSED,
    FaultPoint.DEAD_LETTER_QUEUED,
    FaultPoint.DEAD_LETTER_SENT,
    FaultPoint.APPEND_FAILED,
    FaultPoint.BROKEN,
    FaultPoint.REPLAYED,
}
_RARE_PARTS = ("checkpoint.", "source.", "position.", "probe.")
_IN_A_ROW_MAX = 2  # the fourth death over one record, two of them in its trial, would make it a dead letter
_OFTEN_MAX = 8  # a point of everyday work is let pass so often, at most

Provoke = Callable[[Session, Load, Instance, str], Awaitable[None]]


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """All points once a round; a round is one session, judged at its end."""
    broker = await bench.broker()
    not_passed: list[str] = []
    for number in range(_ROUNDS[scale]):
        rng = random.Random(seed + number)
        points = list(FaultPoint)
        rng.shuffle(points)
        del points[_POINTS_MAX[scale] :]
        place = (await bench.place())._replace(servers=broker.bootstrap_servers)
        async with Session(
            place,
            seed=seed + number,
            worker__handoff_grace="1s",
            checkpoint_bytes=16 << 10,
            worker__idle_after="20ms",
            router__max_uncommitted=40,  # positions are noted often, so that every point of the way in is passed soon
        ) as session:
            await session.spawn().ready()
            async with session.load(ahead=60) as load:
                await session.works(50)
                await session.kill(session.now)
                in_a_row = 0
                for index, point in enumerate(points):
                    if not await _dies(session, load, point, rng, broker, f"{number}x{index}"):
                        not_passed.append(point)
                    await session.look_at_positions()
                    in_a_row += 1
                    if in_a_row == _IN_A_ROW_MAX or point.startswith(("source.", "position.")):
                        await _pass_what_was_touched(session)
                        in_a_row = 0
                await session.spawn().ready()
            tally.add(session, await session.verdict())
    tally.note("points", len(FaultPoint))
    tally.note("not_passed", " ".join(not_passed))


async def _dies(
    session: Session, load: Load, point: FaultPoint, rng: random.Random, broker: KafkaBroker, name: str
) -> bool:
    """Start a worker that is to die at the point, give it cause to pass it, and see it die there."""
    hit = 1 if point in _RARE or point.startswith(_RARE_PARTS) else rng.randrange(1, _OFTEN_MAX)
    breaks = point in {FaultPoint.APPEND_FAILED, FaultPoint.BROKEN}
    append_timeout_ms = 1_500 if breaks else 30_000
    worker = session.spawn(point=point, hit=hit, more={"kafka__extra.delivery.timeout.ms": append_timeout_ms})
    async with asyncio.TaskGroup() as group:
        death = group.create_task(session.dies(worker, patience_s=_PATIENCE_S))
        if point in _PROVOCATIONS:
            await _PROVOCATIONS[point](session, load, worker, name)
        elif breaks:
            await _working(session, worker)
            broker.pause()
            try:
                await asyncio.wait([death], timeout=6)
            finally:
                broker.resume()
    return death.result()


async def _pass_what_was_touched(session: Session) -> None:
    """Deaths in a row over one record make it a dead letter: that is meant, and no line on what kills may do.

    Effects alone may be those of runs that were open: the record may still be on trial.
    """
    worker = session.spawn()
    await session.works_more(worker, 60)
    await session.passes()
    await session.kill(worker)


async def _working(session: Session, worker: Instance) -> None:
    """It has begun an attempt of its own, or is dead already."""
    await eventually_now(
        lambda: worker.process.poll() is not None or any(each.pid == worker.pid for each in session.sink.effects()),
        lambda: f"an attempt: {worker.stderr[-2000:]}",
    )


async def _terminate(session: Session, load: Load, worker: Instance, name: str) -> None:
    await _working(session, worker)
    if worker.process.poll() is None:
        worker.terminate()


async def _cancel(session: Session, load: Load, worker: Instance, name: str) -> None:
    """An acknowledged cancel takes effect, whoever reads it."""
    job = Job(id=f"cancelled{name}", group="cancelled", program=(("hang", 0, 0), ("cancelled", 0, 0)))
    await load.put(job)
    begun = partial(_runs_of, session, job)
    await eventually_now(lambda: begun() or worker.process.poll() is not None, f"{job.id} begins, or its worker ends")
    another = None if begun() else session.spawn()  # it was too slow
    await eventually_now(begun, lambda: f"{job.id} begins: {session.now.stderr[-2000:]}")
    [id_] = begun()
    arguments = session.arguments("run", "cancel", id_, "--no-wait")
    code, _, error = await asyncio.to_thread(run, arguments, folder=session.folder, environment=session.environment())
    assert code == 0, error
    if another is not None:
        another.terminate()
        await session.ends(another)


def _runs_of(session: Session, job: Job) -> set[str]:
    return {each.run for each in session.sink.effects() if each.job == job.id}


async def _park(session: Session, load: Load, worker: Instance, name: str) -> None:
    await load.put(Job(id=f"parked{name}", group="parked", program=(("call", 0, 0), ("forbidden", 0, 0))))


async def _refuse(session: Session, load: Load, worker: Instance, name: str) -> None:
    await load.put(Job(id=f"refused{name}", group="refused", program=(("call", 0, 0), ("refused", 0, 0))))


_PROVOCATIONS: dict[FaultPoint, Provoke] = {
    **dict.fromkeys(_LEAVING, _terminate),
    FaultPoint.CANCEL_READ: _cancel,
    FaultPoint.RUN_PARKING: _park,
    FaultPoint.OUTPUT_REFUSED: _refuse,
}
