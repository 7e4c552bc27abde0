"""What follows the payment: invoice, shipping, the customer's mail, the books."""

from model import Invoice, Order, Payment, Shipment
from outside import chance, once_key, reach

from headrace import Retry, handler

CARRIERS = ("Millstream", "Blue Barge", "Weir & Sons")


@handler
def write_invoice(order: Order, payment: Payment) -> Invoice:
    """A plain `def`: it runs in a thread, so it may compute or block."""
    euros = f"{payment.amount_cents // 100}.{payment.amount_cents % 100:02d}"
    text = f"{order.quantity} x {order.item} for {order.customer}: {euros} EUR, paid as {payment.reference}"
    return Invoice(number=f"I-{order.id}", text=text)


@handler(timeout="2s", retry=Retry(attempts=6, delay="200ms"))
async def request_shipping(order: Order) -> Shipment:
    await reach("shipping", order.id, errors=0.06, latency_ms=120)
    carrier = CARRIERS[int(len(CARRIERS) * chance("carrier", order.id))]
    return Shipment(carrier=carrier, tracking=f"T-{once_key(order.id)}")


@handler(timeout="2s", retry=Retry(attempts=6, delay="200ms"))
async def cancel_shipping(order: Order) -> None:
    """The undo of `request_shipping`."""
    await reach("shipping-cancellations", order.id, latency_ms=60)


@handler(timeout="2s", retry=Retry(attempts=8, delay="200ms"))
async def notify_customer(order: Order, subject: str, text: str) -> None:
    """Send a mail; here it goes nowhere. A real one would carry the idempotency key as its Message-ID."""
    assert subject
    assert text
    await reach(f"mail {subject}", order.id, errors=0.03, latency_ms=30)


@handler(timeout="2s", retry=Retry(attempts=8, delay="200ms"))
async def update_accounting(order: Order, payment: Payment, invoice: Invoice) -> str:
    """Book it. The number of the booking."""
    await reach("accounting", order.id, errors=0.03, latency_ms=40)
    return f"B-{invoice.number}-{payment.reference}"
