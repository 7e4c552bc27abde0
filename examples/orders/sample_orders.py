"""Customers that do not exist, and what they order: the same for the same seed."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, TypedDict

PER_SECOND = 8

CUSTOMERS = ("Ada", "Björn", "Chidi", "Daniela", "Emre", "Fatou", "Grace", "Hiroshi", "Ines", "Jamal", "Kiri", "Liam")
ITEMS = {"lamp": 4990, "chair": 12900, "kettle": 3450, "clock": 2795, "rug": 18900, "mirror": 7600, "mug": 1250}


class Sample(TypedDict):
    """One event to publish. `data` is JSON, `key` is the record's key."""

    topic: str
    type: str
    data: dict[str, Any]
    key: str | None


async def samples(seed: int) -> AsyncIterator[Sample]:
    """Orders without end, PER_SECOND of them a second."""
    dice = random.Random(seed)
    number = 0
    while True:
        number += 1
        order = sample_order(dice, number)
        yield Sample(topic="orders", type="com.shop.order.placed", data=order, key=order["id"])
        await asyncio.sleep(1 / PER_SECOND)


def sample_order(dice: random.Random, number: int) -> dict[str, Any]:
    """Order `number`, counted from 1."""
    customer = dice.choice(CUSTOMERS)
    item, cents = dice.choice(list(ITEMS.items()))
    quantity = dice.choice((1, 1, 1, 2, 2, 3, 6))
    return {
        "id": f"A-{number:05d}",
        "customer": customer,
        "email": f"customer-{dice.randrange(1000):03d}@shop.example",
        "item": item,
        "quantity": quantity,
        "total_cents": quantity * cents,
    }
