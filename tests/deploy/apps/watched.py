"""A little of everything that is counted: child runs, retries, a breaker, a pool, a rate limit, undos, sleeps, approvals, outputs, a thread that stays."""

import asyncio
import os
import time
from dataclasses import dataclass

from headrace import (
    Breaker,
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

NAME = os.environ["E2E_NAME"]
SOURCE, RESULTS = f"{NAME}.in", f"{NAME}.out"
DESK = Pool("desk", size=2)
SUPPLIER = Breaker("supplier", window=4, minimum_calls=4, open_for="200ms", probes=2)


@dataclass
class Order:
    id: int


@handler(retry=Retry(attempts=4, delay="5ms"))
async def reserve(order: Order) -> str:
    if order.id % 3 == 0 and current_attempt().number < 2:
        raise ConnectionError("busy")
    return f"r{order.id}"


@handler
async def release(order: Order) -> None:
    """The undo of `reserve`."""


@handler(pool=DESK)
async def check(order: Order) -> bool:
    await asyncio.sleep(0.01)
    return True


@handler(breaker=SUPPLIER, retry=Retry(attempts=8, delay="5ms"))
async def supply(order: Order) -> str:
    if order.id % 20 < 4 and current_attempt().number < 3:
        raise ConnectionError("down")
    return "supplied"


@handler(rate_limit=RateLimit("bank", limit=200, burst=5))
async def pay(order: Order) -> str:
    if order.id % 10 == 0:
        raise NonRetryable("no money")
    return "paid"


@handler(timeout="50ms", retry=Retry(attempts=1))
def linger(order: Order) -> None:
    """A thread that nobody can end in time."""
    time.sleep(2)


@workflow(on=Schedule(every="1s"))
async def count_stock(run: Run, tick: Tick) -> None:
    """Started by the clock."""


@workflow(on=EventTrigger(SOURCE, type="order"), emits=[RESULTS])
async def fulfil(run: Run, order: Order) -> str:
    await run.call(reserve, order, compensate=release)
    await run.gather(run.call(check, order), run.call(supply, order))
    await run.sleep("10ms")
    await run.call(pay, order)
    await run.emit("order.done", {"id": order.id}, topic=RESULTS)
    return "done"


@workflow(on=EventTrigger(SOURCE, type="question"))
async def ask(run: Run, order: Order) -> bool:
    """Nobody decides in time; about the first one nobody ever decides."""
    await run.approval(title="Go on?", timeout="100ms")
    if order.id:
        return False
    return (await run.approval(title="Really?", roles=["boss"])).approved


@workflow()
async def note(run: Run, order: Order) -> str:
    """Started by another run."""
    return "left alone"


@workflow(on=EventTrigger(SOURCE, type="slow"))
async def slow(run: Run, order: Order) -> str:
    try:
        await run.call(linger, order)
    except TaskFailed:
        return await run.call_child(note, order)
    return "in time"
