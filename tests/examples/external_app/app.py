"""The app of the design's first page. It knows nothing of Headrace's checkout, where its modules' names are links.

Hence the comments for pyright, which looks at the checkout's root first; the test checks a copy outside.
"""  # noqa: INP001

from handlers import check_inventory, invoice_order, notify_back_order, release, request_shipping, reserve  # pyright: ignore[reportAttributeAccessIssue]
from headrace import EventTrigger, Run, workflow
from service import Order, Receipt  # pyright: ignore[reportAttributeAccessIssue]


@workflow(
    on=EventTrigger(topic="orders", type="com.shop.order.placed"),
    key=lambda order: order.id,
    emits=["orders.fulfilled"],
)
async def fulfil(run: Run, order: Order) -> Receipt:
    stock = await run.call(check_inventory, order)
    if not stock.available:
        return await run.call(notify_back_order, order)
    await run.call(reserve, order, compensate=release)
    invoice, shipment = await run.gather(run.call(invoice_order, order), run.call(request_shipping, order))
    await run.emit(
        "com.shop.order.fulfilled", {"order": order.id, "tracking": shipment.tracking}, topic="orders.fulfilled"
    )
    return Receipt(invoice=invoice, shipment=shipment)
