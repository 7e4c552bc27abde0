# pyright: strict
"""Workflows as users write them: pyright must infer what is asserted here, and refuse what is marked. Never run.

A mark that is not needed is an error (`reportUnnecessaryTypeIgnoreComment`), so each refusal is checked too.
"""

from dataclasses import dataclass
from typing import assert_type

from headrace import Run, Step, handler, workflow


@dataclass
class Order:
    id: str


@dataclass
class Rush(Order):
    by: str = ""


@dataclass
class Receipt:
    total: int


@handler
async def charge(order: Order) -> Receipt:
    return Receipt(len(order.id))


@workflow()
async def pay(run: Run, order: Order) -> Receipt:
    return await run.call(charge, order)


@workflow()
async def shop(run: Run, order: Order) -> int:
    assert_type(run.call_child(pay, order), Step[Receipt])
    assert_type(await run.call_child(pay, order, key="k"), Receipt)
    assert_type(await run.call_child(pay, Rush(order.id)), Receipt)
    assert_type(await run.start_child(pay, order), str)
    assert_type(
        await run.gather(run.call_child(pay, order), run.start_child(pay, order), run.call(charge, order)),
        tuple[Receipt, str, Receipt],
    )
    assert_type(await run.map(lambda each: run.call_child(pay, each), [order]), list[Receipt])
    assert_type(await run.race(run.call_child(pay, order), run.sleep("1s")), Receipt | None)
    assert_type(await run.call_child(shop, order), int)

    await run.call_child(pay, "not an order")  # pyright: ignore[reportArgumentType]
    await run.call_child(pay)  # pyright: ignore[reportCallIssue]
    await run.call_child(charge, order)  # pyright: ignore[reportArgumentType]
    await run.start_child(pay, order, key=1)  # pyright: ignore[reportArgumentType]
    total: str = (await run.call_child(pay, order)).total  # pyright: ignore[reportAssignmentType]
    return len(total)
