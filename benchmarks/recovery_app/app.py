"""The app of `python -m benchmarks.recovery`: orders that wait for days, and orders that are done at once."""

from __future__ import annotations

import msgspec

from headrace import EventTrigger, Run, handler, workflow


class Order(msgspec.Struct):
    id: str
    note: str = ""


@handler
async def reserve(order: Order) -> str:
    return f"reservation-{order.id}"


@workflow(on=EventTrigger("slow", "slow.order"), emits=["done"])
async def slow(run: Run, order: Order) -> None:
    await run.call(reserve, order)
    await run.sleep("10d")
    await run.emit("order.done", {"id": order.id}, topic="done")


@workflow(on=EventTrigger("quick", "quick.order"), emits=["done"])
async def quick(run: Run, order: Order) -> None:
    await run.call(reserve, order)
    await run.emit("order.done", {"id": order.id}, topic="done")
