"""Runs that start runs: several at once, one with a key, one that is let go, one that is given up, one that fails."""

import asyncio
import os
from dataclasses import dataclass

from effect_file import effect

from headrace import ChildFailed, EventTrigger, Run, handler, workflow

NAME = os.environ["E2E_NAME"]
SOURCE, TOPIC = f"{NAME}.in", f"{NAME}.out"


@dataclass
class Order:
    id: str
    n: int
    group: str


@handler
async def pack(order: Order, what: int) -> str:
    effect("start", order.id)
    await asyncio.sleep(0.002 * (order.n % 4))
    effect("end", order.id)
    return f"{order.id}-{what}"


@workflow()
async def parcel(run: Run, order: Order) -> str:
    return await run.call(pack, order, 1)


@workflow(key=lambda order: order.group)
async def bill(run: Run, order: Order) -> str:
    return await run.call(pack, order, 2)


@workflow()
async def idle(run: Run, order: Order) -> str:
    await run.sleep("1h")
    return "never"


@workflow()
async def refuse(run: Run, order: Order) -> str:
    raise ValueError(order.id)


@workflow(on=EventTrigger(SOURCE, type="order"), emits=[TOPIC])
async def fulfil(run: Run, order: Order) -> None:
    first, second = await run.gather(run.call_child(parcel, order), run.call_child(bill, order))
    await run.race(run.call_child(idle, order), run.sleep("20ms"))
    await run.start_child(parcel, order)
    try:
        await run.call_child(refuse, order)
    except ChildFailed as failed:
        data = {"id": order.id, "parts": [first, second], "why": failed.message}
        await run.emit("order.done", data, topic=TOPIC)
