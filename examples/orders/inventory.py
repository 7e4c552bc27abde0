"""The inventory system: slow, sometimes failing, and once in a while down.

One breaker guards all calls to it. Open, it *holds* them, and no attempt is used up; `check_stock` waits three seconds
for its answer, holding included, before the workflow takes last night's list instead.
"""

from model import Order, Reservation, Stock
from outside import chance, in_outage, once_key, reach, silence

from headrace import Breaker, Retry, handler

OUT_OF_STOCK = 0.04  # share of orders

BREAKER = Breaker(
    "inventory",
    window=16,
    minimum_calls=16,
    failure_rate=0.5,
    open_for="3500ms",  # longer than a check waits: those who met the outage are gone when the probes go out
    probes=5,
)


@handler(timeout="600ms", retry=Retry(attempts=4, delay="200ms", deadline="3s"), breaker=BREAKER)
async def check_stock(order: Order) -> Stock:
    """Ask the live system. During an outage it stays silent."""
    if in_outage(order.id):
        await silence()
    await reach("inventory", order.id, errors=0.06, silences=0.02, latency_ms=40)
    return Stock(available=in_stock(order), source="live")


@handler
async def read_stock_list(order: Order) -> Stock:
    """The fallback: the list that the warehouse writes every night. It is always there, and a little old."""
    return Stock(available=in_stock(order), source="list")


@handler(timeout="600ms", retry=Retry(attempts=8, delay="100ms", cap="2s"), breaker=BREAKER)
async def reserve_item(order: Order) -> Reservation:
    """Put it aside. The reservation's id comes from the idempotency key: a repeated call reserves nothing twice."""
    await reach("reservations", order.id, errors=0.05, silences=0.01, latency_ms=40)
    return Reservation(id=f"R-{once_key(order.id)}", item=order.item, quantity=order.quantity)


@handler(timeout="600ms", retry=Retry(attempts=20, delay="200ms", cap="5s"), breaker=BREAKER)
async def release_item(order: Order) -> None:
    """The undo of `reserve_item`. An undo should hardly ever give up: many attempts."""
    await reach("releases", order.id, errors=0.05, latency_ms=30)


def in_stock(order: Order) -> bool:
    return chance("stock", order.id) >= OUT_OF_STOCK
