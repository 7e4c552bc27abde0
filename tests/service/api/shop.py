"""The app of the API's tests."""

import os
from dataclasses import dataclass

from headrace import EventTrigger, NonRetryable, Run, Schedule, handler, workflow

NAME = os.environ["E2E_NAME"]


@dataclass
class Order:
    id: str
    bad: bool = False
    slow: bool = False


@handler
async def charge(order: Order) -> dict[str, str]:
    if order.bad:
        raise NonRetryable("no money")
    return {"charged": order.id}


@workflow(on=EventTrigger(f"{NAME}.in", type="order"), key=lambda order: order.id)
async def fulfil(run: Run, order: Order) -> dict[str, str]:
    """Charge an order; a slow one waits first."""
    if order.slow:
        await run.sleep("1h")
    return await run.call(charge, order)


@workflow(key=lambda order: order.id, on_conflict="reject")
async def only(run: Run, order: Order) -> None:
    await run.sleep("1h")


@workflow(key=lambda order: order.id, on_conflict="join")
async def together(run: Run, order: Order) -> None:
    await run.sleep("1h")


@workflow(version="2")
async def free(run: Run, note: str) -> str:
    return note


@workflow(key=lambda order: order.id)
async def asking(run: Run, order: Order) -> str:
    answer = await run.approval(title=f"Order {order.id}?", roles=["finance"])
    return f"{answer.decision} by {answer.by}"


@workflow(on=Schedule(every="1h"))
async def hourly(run: Run, _: None) -> None:
    """By the clock; in a test, by hand."""
