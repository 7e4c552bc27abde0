"""The app of the simulation: workflows that carry out programs, and handlers that behave as these say and tell the world what they do."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace import (
    Breaker,
    ChildFailed,
    EventTrigger,
    NonRetryable,
    Pool,
    RateLimit,
    Retry,
    Run,
    Schedule,
    TaskFailed,
    Tick,
    current_attempt,
    handler,
    workflow,
)
from headrace.handlers.attempt import Attempt as AttemptNow
from headrace.service.definitions.app import App
from headrace.service.definitions.workflow import Workflow
from tests.simulation.clock import EPOCH_S
from tests.simulation.program import (
    ATTEMPTS_MAX,
    Ask,
    Attempt,
    Call,
    Die,
    Emit,
    Flip,
    Forever,
    Forsake,
    Gather,
    Map,
    Op,
    Outrun,
    Program,
    Race,
    Raise,
    Sleep,
    Sub,
    answer,
)
from tests.simulation.scheduled import Scheduled

SOURCE, RESULTS = "in", "out"
_RETRY = Retry(attempts=ATTEMPTS_MAX, delay="50ms", cap="2s")
_FOREVER_S = 1_000_000.0
_LONG = "10m"  # longer than any stop of a process, which an attempt's time goes on in


class World(Protocol):
    """Who is told what handlers do. Both return at once; a call from a process that is dead is no call."""

    def began(self, attempt: AttemptNow, program: str, n: int, what: str) -> None: ...

    def ended(self, attempt: AttemptNow) -> None: ...

    def dies(self, program: str) -> None:
        """Code that ends its process has been reached. Returns if it has been seen to; else nothing that comes after has any effect."""
        ...

    def answered(self, run: str, n: int, decision: str, by: str) -> None:
        """The run was told what became of what it asks."""
        ...

    def is_cured(self, run: str) -> bool:
        """Whether what makes this run's program fail does so no more."""
        ...

    def misfits(self, run: str, n: int) -> bool:
        """Whether this process has code of another day, which does not know a call that the log has."""
        ...

    def swallows(self, attempt: AttemptNow) -> bool:
        """Whether this attempt ignores its cancellation for a while."""
        ...


_present: list[World] = []  # workflows may not ask the loop


def live_in(world: World) -> None:
    """From now on it is this world that code is told of."""
    _present[:] = [world]


def _world() -> World:
    return _present[0]


async def _act(program: str, call: Call) -> int:
    attempt = current_attempt()
    world = _world()
    world.began(attempt, program, call.n, "act")
    try:
        return await _acted(world, attempt, program, call)
    finally:
        world.ended(attempt)


async def _acted(world: World, attempt: AttemptNow, program: str, call: Call) -> int:
    if call.kills:
        world.dies(program)
    try:
        if call.hangs and attempt.number == 1:
            await asyncio.sleep(_FOREVER_S)
        if call.ms:
            await asyncio.sleep(call.ms / 1000)
    except asyncio.CancelledError:
        if world.swallows(attempt):
            await asyncio.sleep(0.5)  # a slow clean-up
        raise
    if attempt.number <= call.fails + call.hangs and attempt.number < ATTEMPTS_MAX:
        raise ConnectionError("not yet")
    if call.fatal:
        raise NonRetryable("never")
    return answer(call.n)


@handler(retry=_RETRY, timeout=_LONG)
async def act(program: str, call: Call) -> int:
    return await _act(program, call)


@handler(retry=_RETRY, timeout="5s")
async def hanging(program: str, call: Call) -> int:
    return await _act(program, call)


@handler(retry=_RETRY, timeout=_LONG, pool=Pool("few", size=2))
async def pooled(program: str, call: Call) -> int:
    return await _act(program, call)


@handler(
    retry=_RETRY, timeout=_LONG, breaker=Breaker("guard", failure_rate=0.5, window=10, minimum_calls=5, open_for="2s")
)
async def guarded(program: str, call: Call) -> int:
    return await _act(program, call)


@handler(retry=_RETRY, timeout=_LONG, rate_limit=RateLimit("paced", limit=5, burst=2))
async def paced(program: str, call: Call) -> int:
    return await _act(program, call)


@handler(retry=_RETRY, timeout=_LONG)
async def undo(program: str, call: Call) -> None:
    attempt = current_attempt()
    _world().began(attempt, program, call.n, "undo")
    await asyncio.sleep(call.ms / 1000)


@handler(timeout="20d")
async def lose(program: str, n: int) -> int:
    _world().began(current_attempt(), program, n, "lose")
    await asyncio.sleep(_FOREVER_S)
    return 0


_HANDLERS = {"act": act, "hanging": hanging, "pooled": pooled, "guarded": guarded, "paced": paced}


def _call(run: Run, program: Program, call: Call) -> Any:
    return run.call(_HANDLERS[call.kind], program.id, call, compensate=undo if call.undo else None)


async def _ops(run: Run, program: Program, ops: list[Op]) -> list[int]:
    values: list[int] = []
    for op in ops:
        match op:
            case Call():
                mended = op.fatal and _world().is_cured(run.id)
                values.append(await _call(run, program, msgspec.structs.replace(op, fatal=False) if mended else op))
            case Sleep(ms=ms):
                await run.sleep(f"{ms}ms")
            case Ask(n=n, ms=ms, role=role):
                said = await run.approval(
                    title=f"{program.id}/{n}", roles=[role] if role else [], timeout=None if ms is None else f"{ms}ms"
                )
                _world().answered(run.id, n, said.decision, said.by)
                values.append(answer(n))
            case Outrun(n=n, winner=winner):
                values += await run.race(_ops(run, program, winner), _outrun(run, program, n))
            case Emit(n=n):
                data = {"id": program.id, "n": n} | ({"refused": True} if op.refused else {})
                await run.emit("done", data, topic=RESULTS, subject=f"{program.id}/{n}")
            case Gather(branches=branches):
                coroutines: list[Coroutine[Any, Any, list[int]]] = [_ops(run, program, branch) for branch in branches]
                for found in await run.gather(*coroutines):
                    values += found
            case Race(winner=winner, loser=loser):
                found = await run.race(_ops(run, program, winner), _lost(run, program, loser))
                values += found
            case Map(calls=calls, concurrency=concurrency):
                values += await run.map(lambda call: _call(run, program, call), calls, concurrency=concurrency)
            case Attempt(call=call):
                try:
                    await _call(run, program, call)
                except TaskFailed:
                    values.append(-call.n)
            case Sub():
                values += await _sub(run, op)
            case Forsake(winner=winner, program=child):
                values += await run.race(_ops(run, program, winner), run.call_child(free, child))
            case Forever(sleeps=True):
                await run.sleep("30d")
            case Forever(n=n):
                values += await _lost(run, program, n)
            case Raise():
                if not _world().is_cured(run.id):
                    raise ValueError("as the program says")
            case Die():
                _world().dies(program.id)
            case Flip(call=call):
                if _world().misfits(run.id, call.n):
                    await run.sleep("1h")
                values.append(await _call(run, program, call))
    return values


async def _sub(run: Run, op: Sub) -> list[int]:
    code = {"free": free, "queue": queue}[op.kind]
    if not op.awaited:
        await run.start_child(code, op.program)
        return []
    try:
        return await run.call_child(code, op.program)
    except ChildFailed:
        if not op.fails:
            raise
        return [-op.n]


async def _lost(run: Run, program: Program, n: int) -> list[int]:
    await run.call(lose, program.id, n)
    return []


async def _outrun(run: Run, program: Program, n: int) -> list[int]:
    await run.approval(title=f"{program.id}/{n}/lost")
    return []


def _key(program: Program) -> str:
    if program.deadly:
        _world().dies(program.id)
    return program.key


@workflow(on=(EventTrigger(SOURCE, type="free"), EventTrigger(SOURCE, type="both")), emits=[RESULTS])
async def free(run: Run, program: Program) -> list[int]:
    return await _ops(run, program, program.ops)


@workflow(
    on=(EventTrigger(SOURCE, type="queue"), EventTrigger(SOURCE, type="both")),
    key=_key,
    on_conflict="queue",
    emits=[RESULTS],
)
async def queue(run: Run, program: Program) -> list[int]:
    return await _ops(run, program, program.ops)


@workflow(on=EventTrigger(SOURCE, type="join"), key=_key, on_conflict="join", emits=[RESULTS])
async def join(run: Run, program: Program) -> list[int]:
    return await _ops(run, program, program.ops)


@workflow(on=EventTrigger(SOURCE, type="reject"), key=_key, on_conflict="reject", emits=[RESULTS])
async def reject(run: Run, program: Program) -> list[int]:
    return await _ops(run, program, program.ops)


WORKFLOWS = {"free": (free,), "queue": (queue,), "join": (join,), "reject": (reject,), "both": (free, queue)}


def _ticking(number: int, plan: Scheduled) -> Workflow[Tick, Any]:
    """A workflow that a schedule starts, until it is over."""

    async def tick(run: Run, tick: Tick) -> list[Any]:
        await run.call(act, f"tick{number}", Call(n=1, ms=plan.act_ms))
        return [tick.schedule, round(tick.scheduled_at.timestamp() * 1_000)]

    end = datetime.fromtimestamp(EPOCH_S + plan.until_s, UTC)
    schedule = Schedule(every=f"{plan.every_s}s", misfire=plan.misfire.value, overlap=plan.overlap.value, end=end)
    return workflow(on=schedule, name=f"tick{number}")(tick)


class _Lacking(App):
    """It lacks the code of two workflows, as a process does that was not deployed yet: their runs are held. Its routers know their triggers."""

    def workflow(self, namespace: str, name: str, version: str) -> Any:
        return None if name in {"free", "queue"} else super().workflow(namespace, name, version)


def app_of(plans: Sequence[Scheduled]) -> App:
    """The app, with these schedules."""
    return _made(App, *(_ticking(number, plan) for number, plan in enumerate(plans)))


def lacking_app_of(plans: Sequence[Scheduled]) -> App:
    """The same before it was deployed: without the code of two workflows, and without the first schedule."""
    return _made(_Lacking, *(_ticking(number, plan) for number, plan in enumerate(plans) if number))


def _made(kind: type[App], *ticking: Workflow[Tick, Any]) -> App:
    handlers = (act, hanging, pooled, guarded, paced, undo, lose)
    for each in handlers:
        each.load()
    workflows = (free, queue, join, reject, *ticking)
    return kind(name="sim", root=Path(), modules=(), workflows=workflows, handlers=handlers)
