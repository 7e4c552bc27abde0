"""Shops run low; one restock of an item serves them all.

    headrace dev examples/restock --feed

Two topics start the same workflow: counters of shops, filtered, and people who ask. While an item is being restocked,
further signals about it join that run.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypedDict

from model import Delivery, Need, Restocked, Signal
from shops import SHOPS, count_need, deliver
from supplier import cancel_supplier_order, order_from_supplier

from headrace import Event, EventTrigger, Run, workflow

ITEMS = ("lamp", "chair", "kettle", "clock", "rug", "mirror", "mug")


def is_low(event: Event[Any]) -> bool:
    """A filter sees the event with its data as plain JSON. One that raises sends the record to the dead letters."""
    return bool(event.data["left"] < event.data["minimum"])


@workflow(
    on=[
        EventTrigger("stock.levels", "com.shop.stock.counted", filter=is_low),
        EventTrigger("stock.requests", "com.shop.stock.requested"),
    ],
    key=lambda signal: signal.item,
    on_conflict="join",
    timeout="10m",
    emits=["stock.restocked"],
)
async def restock(run: Run, signal: Signal) -> Restocked:
    """Gather what all shops need, order it, wait for it, hand it out."""
    item = signal.item
    await run.sleep("1s")  # the first signal is seldom the last; those that come meanwhile join

    async def need_of(shop: str) -> Need:
        return await run.call(count_need, item, shop)

    needs = [need for need in await run.map(need_of, SHOPS, concurrency=6) if need.quantity > 0]
    if not needs:
        return await restocked(run, Restocked(item, 0, [], None))

    total = sum(need.quantity for need in needs)
    ordered = await run.call(order_from_supplier, item, total, compensate=cancel_supplier_order)
    await run.sleep_until(run.now() + timedelta(seconds=ordered.ready_in_s))

    async def deliver_to(need: Need) -> Delivery:
        return await run.call(deliver, need)

    deliveries = await run.map(deliver_to, needs, concurrency=4)
    return await restocked(run, Restocked(item, total, deliveries, ordered.number))


async def restocked(run: Run, result: Restocked) -> Restocked:
    await run.emit("com.shop.stock.restocked", result, topic="stock.restocked")
    return result


class Sample(TypedDict):
    """One event to publish. `data` is JSON, `key` is the record's key."""

    topic: str
    type: str
    data: dict[str, Any]
    key: str | None


async def feed(seed: int) -> AsyncIterator[Sample]:
    """Four signals a second, without end: most are counts, and most counts are not low."""
    dice = random.Random(seed)
    while True:
        item = dice.choice(ITEMS)
        data = {"item": item, "shop": dice.choice(SHOPS), "left": dice.randrange(20), "minimum": 5}
        if dice.random() < 0.9:
            yield Sample(topic="stock.levels", type="com.shop.stock.counted", data=data, key=item)
        else:
            yield Sample(topic="stock.requests", type="com.shop.stock.requested", data=data, key=item)
        await asyncio.sleep(0.25)
