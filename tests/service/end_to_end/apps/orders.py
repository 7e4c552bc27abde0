"""Five durable steps an order; every seventh order's reservation fails once. Effects are written down."""

import asyncio
import os
from dataclasses import dataclass

from effect_file import effect

from headrace import EventTrigger, Retry, Run, current_attempt, handler, workflow

NAME = os.environ["E2E_NAME"]
WORK_S = float(os.environ.get("E2E_WORK_S", "0.01"))


@dataclass
class Order:
    id: str
    n: int


async def work(order: Order) -> None:
    effect("start", order.id)
    await asyncio.sleep(WORK_S * (order.n % 5))
    effect("end", order.id)


@handler
async def check(order: Order) -> bool:
    await work(order)
    return order.n % 2 == 0


@handler(retry=Retry(attempts=3, delay="5ms"))
async def reserve(order: Order) -> str:
    if order.n % 7 == 0 and current_attempt().number == 1:
        effect("start", order.id)
        effect("end", order.id)
        raise ConnectionError("the inventory did not answer")
    await work(order)
    return f"r-{order.id}"


@handler
def invoice(order: Order) -> str:
    effect("start", order.id)
    effect("end", order.id)
    return f"i-{order.id}"


@handler
async def ship(order: Order) -> str:
    await work(order)
    return f"s-{order.id}"


@workflow(on=EventTrigger(f"{NAME}.orders"), key=lambda order: order.id, emits=[f"{NAME}.results"])
async def fulfil(run: Run, order: Order) -> str:
    even = await run.call(check, order)
    reserved = await run.call(reserve, order)
    invoiced, shipped = await run.gather(run.call(invoice, order), run.call(ship, order))
    result = {"order": order.id, "even": even, "parts": [reserved, invoiced, shipped]}
    await run.emit("order.done", result, topic=f"{NAME}.results", key=order.id)
    return shipped
