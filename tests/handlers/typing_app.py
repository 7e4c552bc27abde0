# pyright: strict
"""An app as users write it: pyright must infer what is asserted here, and refuse what is marked.

Never run. A mark that is not needed is an error (`reportUnnecessaryTypeIgnoreComment`), so each refusal is checked too.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from headrace.handlers.attempt import Attempt, current_attempt
from headrace.handlers.breaker import Breaker
from headrace.handlers.definition import Handler, handler
from headrace.handlers.payload import PayloadType
from headrace.handlers.pool import Pool
from headrace.handlers.rate_limit import RateLimit
from headrace.handlers.retry import Retry, RetryAfter, after_failure


@dataclass
class Order:
    id: str


@dataclass
class Stock:
    available: bool


@handler
async def check(order: Order) -> Stock:
    assert_type(current_attempt(), Attempt)
    return Stock(available=bool(order.id))


@handler(
    timeout="2s",
    retry=Retry(attempts=4, backoff="exponential", on=(ConnectionError, TimeoutError), deadline=timedelta(minutes=1)),
    breaker=Breaker("inventory", failure_rate=0.5, window="30s"),
    pool=Pool("inventory", size=8),
    rate_limit=RateLimit("inventory", limit=50, per="1s", burst=10),
)
async def reserve(order: Order, quantity: int) -> str:
    return f"{order.id}{quantity}"


@handler(name="invoice.v2")
def invoice(order: Order) -> bytes:
    return order.id.encode()


@handler
async def nothing() -> None: ...


@handler
async def untyped_result(order: Order) -> Any:
    return order


assert_type(check, Handler[Order, Stock])
assert_type(reserve, Handler[Order, int, str])
assert_type(invoice, Handler[Order, bytes])
assert_type(nothing, Handler[None])
assert_type(untyped_result, Handler[Order, Any])
assert_type(check.result, PayloadType[Stock])
assert_type(invoice(Order("a")), Awaitable[bytes])


async def unit_test() -> None:
    assert_type(await check(Order("a")), Stock)
    assert_type(await reserve(Order("a"), 3), str)
    assert_type(await invoice(Order("a")), bytes)
    assert_type(await nothing(), None)


async def refusals() -> None:
    await check()  # pyright: ignore[reportCallIssue]
    await check("a")  # pyright: ignore[reportArgumentType]
    await check(Order("a"), 1)  # pyright: ignore[reportCallIssue]
    await reserve(Order("a"), "3")  # pyright: ignore[reportArgumentType]
    await check(order=Order("a"))  # pyright: ignore[reportCallIssue]
    wrong: str = await check(Order("a"))  # pyright: ignore[reportAssignmentType]
    print(wrong)
    handler(timeout=2)  # pyright: ignore[reportArgumentType]
    handler(retries=2)  # pyright: ignore[reportCallIssue]
    handler(pool="inventory")  # pyright: ignore[reportArgumentType]
    Retry(delay=0.2)  # pyright: ignore[reportArgumentType]
    Retry(backoff="fibonacci")  # pyright: ignore[reportArgumentType]
    Retry(on=ConnectionError)  # pyright: ignore[reportArgumentType]
    Retry(never=(KeyboardInterrupt,))  # pyright: ignore[reportArgumentType]
    Breaker("b", slow_call=2)  # pyright: ignore[reportArgumentType]
    Breaker("b", on_open="wait")  # pyright: ignore[reportArgumentType]
    Pool("p")  # pyright: ignore[reportCallIssue]
    Retry().attempts = 3  # pyright: ignore[reportAttributeAccessIssue]


def policies() -> int:
    decision = after_failure(Retry(), attempt_number=1, retryable=True, fraction=0.5, elapsed_ms=0)
    return decision.delay_ms if isinstance(decision, RetryAfter) else 0
