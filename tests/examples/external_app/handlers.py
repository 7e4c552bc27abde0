"""A user's own module, called like another part of Headrace."""  # noqa: INP001

from headrace import Breaker, Retry, current_attempt, handler
from service import Invoice, Order, Receipt, Shipment, Stock, in_stock  # pyright: ignore[reportAttributeAccessIssue]


@handler(timeout="2s", retry=Retry(attempts=4, backoff="exponential"), breaker=Breaker("inventory", failure_rate=0.5))
async def check_inventory(order: Order) -> Stock:
    if current_attempt().number == 1:
        raise ConnectionError("the first attempt never works")
    return Stock(available=in_stock(order.item))


@handler
async def notify_back_order(order: Order) -> Receipt:
    return Receipt(invoice=None, shipment=None)


@handler
async def reserve(order: Order) -> str:
    return f"{order.item} for {order.id}"


@handler
async def release(order: Order) -> None:
    assert order.id


@handler
def invoice_order(order: Order) -> Invoice:
    return Invoice(number=f"I-{order.id}")


@handler(retry=Retry(attempts=2, delay="1ms"))
async def request_shipping(order: Order) -> Shipment:
    if order.total > 10_000:
        raise ValueError(f"nobody carries what is worth {order.total}")
    return Shipment(tracking=f"T-{order.id}")
