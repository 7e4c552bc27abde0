"""Three quick steps behind a breaker, for many orders."""

import os
from dataclasses import dataclass

from headrace import Breaker, EventTrigger, Retry, Run, current_attempt, handler, workflow

NAME = os.environ["E2E_NAME"]
GATEWAY = Breaker("e2e-gateway", failure_rate=0.9)


@dataclass
class Order:
    id: str
    n: int


@handler
async def check(order: Order) -> bool:
    return order.n % 2 == 0


@handler(breaker=GATEWAY, retry=Retry(attempts=3, delay="1ms"))
async def charge(order: Order) -> str:
    if order.n % 50 == 0 and current_attempt().number == 1:
        raise ConnectionError("the gateway did not answer")
    return f"c-{order.id}"


@workflow(on=EventTrigger(f"{NAME}.orders"), key=lambda order: order.id, emits=[f"{NAME}.results"])
async def sell(run: Run, order: Order) -> str:
    await run.call(check, order)
    charged = await run.call(charge, order)
    await run.emit("order.sold", {"order": order.id}, topic=f"{NAME}.results", key=order.id)
    return charged
