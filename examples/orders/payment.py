"""The payment gateway: takes twenty calls at once, loses some, and declines a card now and then."""

from model import Order, Payment
from outside import SystemDown, chance, once_key, reach

from headrace import Breaker, NonRetryable, Pool, Retry, handler

DECLINED = 0.03  # share of orders
UNREACHABLE = 0.01  # share of orders whose every attempt fails


class CardDeclined(NonRetryable):
    """The bank said no. Asking again would not help, and says nothing about the gateway's health."""


GATEWAY = Pool("payment", size=20)
BREAKER = Breaker(
    "payment", window=40, minimum_calls=40, failure_rate=0.6, open_for="5s", probes=5, ignore=(CardDeclined,)
)


@handler(timeout="1s", retry=Retry(attempts=4, delay="150ms"), breaker=BREAKER, pool=GATEWAY)
async def charge(order: Order) -> Payment:
    """Take the money, once: the gateway knows a repeated call by its reference."""
    if chance("unreachable", order.id) < UNREACHABLE:
        raise SystemDown("payment gateway: connection reset")
    await reach("payment", order.id, errors=0.10, silences=0.04, latency_ms=80)
    if chance("declined", order.id) < DECLINED:
        raise CardDeclined(f"The card of {order.customer} was declined")
    return Payment(reference=f"P-{once_key(order.id)}", amount_cents=order.total_cents)


@handler(timeout="1s", retry=Retry(attempts=20, delay="200ms", cap="5s"), breaker=BREAKER, pool=GATEWAY)
async def refund(order: Order) -> None:
    """Give back what was taken for this order; nothing, if nothing was."""
    await reach("refunds", order.id, errors=0.05, latency_ms=60)
