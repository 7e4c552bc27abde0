"""The benchmark's workflow: check, reserve, invoice beside shipping, emit. Five durable steps, handlers that do nothing.

The topics come from the environment, because each scenario has its own. `benchmarks/engine.py` drives the same workflow without a log.
"""

import os

import msgspec

from headrace import EventTrigger, Run, handler, workflow

ORDERS = os.environ.get("BENCH_ORDERS", "orders")
RESULTS = os.environ.get("BENCH_RESULTS", "results")


class Line(msgspec.Struct):
    article: str
    quantity: int


class Order(msgspec.Struct):
    order: str
    customer: str
    total: int
    currency: str
    lines: list[Line]


@handler
async def check(order: Order) -> bool:
    return order.total > 0


@handler
async def reserve(order: Order) -> str:
    return f"reservation-{order.order}"


@handler
async def invoice(order: Order) -> str:
    return f"invoice-{order.order}"


@handler
async def shipping(order: Order) -> str:
    return f"shipping-{order.order}"


@workflow(on=EventTrigger(ORDERS, "bench.order.placed"), key=lambda order: order.order, emits=[RESULTS])
async def fulfil(run: Run, order: Order) -> None:
    in_stock = await run.call(check, order)
    reservation = await run.call(reserve, order)
    billed, sent = await run.gather(run.call(invoice, order), run.call(shipping, order))
    result = {
        "order": order.order,
        "in_stock": in_stock,
        "reservation": reservation,
        "invoice": billed,
        "shipping": sent,
    }
    await run.emit("bench.order.done", result, topic=RESULTS, key=order.order)
