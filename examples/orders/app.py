"""A shop's orders, from the event that places one to the event that says it is on its way.

    headrace dev examples/orders --feed

`fulfil` is the whole process. It is ordinary Python, yet it survives a kill -9 at any line: what its handlers answered
is in the run log. README.md has the picture and says what to watch.
"""

from collections.abc import AsyncIterator

from fulfilment import cancel_shipping, notify_customer, request_shipping, update_accounting, write_invoice
from inventory import check_stock, read_stock_list, release_item, reserve_item
from model import Order, OrderBackOrdered, OrderFailed, OrderFulfilled, Payment, Receipt, Stock, SystemDegraded
from payment import CardDeclined, charge, refund
from sample_orders import Sample, samples

from headrace import Cause, EventTrigger, Run, TaskFailed, workflow

RESULTS = ("orders.fulfilled", "orders.backordered", "orders.failed", "shop.alerts")


@workflow(
    on=EventTrigger("orders", "com.shop.order.placed"),
    key=lambda order: order.id,
    on_conflict="join",  # the same order once more while it is open: one run
    emits=RESULTS,
)
async def fulfil(run: Run, order: Order) -> Receipt:
    """Check, reserve, charge, invoice and ship, tell the customer, book. What was done is undone if the rest fails."""
    try:
        return await fulfilled(run, order)
    except TaskFailed as failed:
        reason = OrderFailed(order.id, failed.handler, failed.message, failed.attempts)
        await run.emit("com.shop.order.failed", reason, topic="orders.failed")
        raise  # the run fails, and its undos run: release, refund, cancel, the last one first


async def fulfilled(run: Run, order: Order) -> Receipt:
    stock = await stock_of(run, order)
    if not stock.available:
        return await back_ordered(run, order)

    await run.call(reserve_item, order, compensate=release_item)
    payment = await paid(run, order)
    invoice, shipment = await run.gather(
        run.call(write_invoice, order, payment),
        run.call(request_shipping, order, compensate=cancel_shipping),
    )
    await run.call(notify_customer, order, "On its way", f"{shipment.carrier} brings it: {shipment.tracking}")
    await run.call(update_accounting, order, payment, invoice)

    result = OrderFulfilled(order.id, invoice.number, shipment.tracking, stock.source)
    await run.emit("com.shop.order.fulfilled", result, topic="orders.fulfilled")
    return Receipt(order.id, "fulfilled", shipment.tracking)


async def stock_of(run: Run, order: Order) -> Stock:
    """Ask the inventory system; without an answer tell the admin and take last night's list."""
    try:
        return await run.call(check_stock, order)
    except TaskFailed as failed:
        await alert(run, order, failed, system="inventory", instead="the stock list of last night")
        return await run.call(read_stock_list, order)


async def paid(run: Run, order: Order) -> Payment:
    try:
        return await run.call(charge, order, compensate=refund)
    except TaskFailed as failed:
        if was_declined(failed):
            await run.call(notify_customer, order, "Payment declined", "Your bank declined the payment.")
        else:
            await alert(run, order, failed, system="payment", instead="nothing; the order fails")
            await run.call(refund, order)  # a call without an answer may still have taken the money
        raise


async def back_ordered(run: Run, order: Order) -> Receipt:
    await run.call(notify_customer, order, "Back-ordered", f"We have no {order.item} today, and ordered some for you.")
    result = OrderBackOrdered(order.id, order.item, order.quantity)
    await run.emit("com.shop.order.backordered", result, topic="orders.backordered")
    return Receipt(order.id, "back-ordered")


async def alert(run: Run, order: Order, failed: TaskFailed, *, system: str, instead: str) -> None:
    notice = SystemDegraded(system, order.id, failed.cause.value, failed.message, instead)
    await run.emit("com.shop.system.degraded", notice, topic="shop.alerts", key=system)


def was_declined(failed: TaskFailed) -> bool:
    """A failure reaches the workflow as text: the name of the error's class is in `error`."""
    return failed.cause is Cause.RAISED and failed.error == f"{CardDeclined.__module__}.{CardDeclined.__qualname__}"


async def feed(seed: int) -> AsyncIterator[Sample]:
    """Sample orders for `headrace dev --feed`: about eight a second, without end.

    Each is `{"topic": ..., "type": ..., "data": ..., "key": ...}`; the pace is the generator's own.
    """
    async for sample in samples(seed):
        yield sample
