"""The supplier: takes orders by the hundred, and needs a few seconds where a real one needs days."""

import asyncio
import hashlib

from model import SupplierOrder

from headrace import Retry, current_attempt, handler

PACK = 12


@handler(timeout="2s", retry=Retry(attempts=5, delay="200ms"))
async def order_from_supplier(item: str, quantity: int) -> SupplierOrder:
    """Order full packs. The number comes from the idempotency key: ordered twice is delivered once."""
    await asyncio.sleep(0.1)
    packs = -(-quantity // PACK)
    digest = hashlib.sha256(idempotency_key(item).encode()).hexdigest()
    return SupplierOrder(number=f"S-{digest[:8]}", item=item, quantity=packs * PACK, ready_in_s=2 + packs % 3)


@handler(timeout="2s", retry=Retry(attempts=20, delay="200ms", cap="5s"))
async def cancel_supplier_order(item: str, quantity: int) -> None:
    """The undo of `order_from_supplier`, called with the same arguments."""
    assert item
    assert quantity > 0
    await asyncio.sleep(0.05)


def idempotency_key(otherwise: str) -> str:
    """The task's; `otherwise` when a handler is called directly, as in a unit test."""
    try:
        return current_attempt().idempotency_key
    except LookupError:
        return otherwise
