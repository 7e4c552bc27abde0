"""The order that every scenario works on, and when it is due. Both ends use it: the load writes, `figures.py` reads."""

import json
from typing import Final

import msgspec

SOURCE_TYPE: Final = "bench.order.placed"
RESULT_TYPE: Final = "bench.order.done"
PARTITIONS: Final = 8  # of order and result topics: what Headrace itself makes for users


class Schedule(msgspec.Struct, frozen=True):
    """Order `n` is due at `start_us` + n / rate, whatever happened to those before it. `rate` 0: all at once.

    `start_us` is since the epoch; `rate` is orders a second.
    """

    start_us: float
    rate: float
    count: int

    def due_us(self, number: int) -> float:
        """When the order is due, in microseconds since the epoch."""
        return self.start_us + (number * 1e6 / self.rate if self.rate else 0.0)


def order_id(number: int) -> str:
    return f"order-{number}"


def number_of(order: str) -> int:
    """The inverse of `order_id`; -1 for a text that is no order's id."""
    _, dash, digits = order.partition("-")
    return int(digits) if dash and digits.isdecimal() else -1


def order_body(number: int) -> bytes:
    """About 230 bytes, as a shop would send it."""
    return json.dumps(
        {
            "order": order_id(number),
            "customer": f"customer-{number % 997}",
            "total": 1999 + number % 5000,
            "currency": "EUR",
            "lines": [
                {"article": f"article-{number % 53}", "quantity": 1 + number % 3},
                {"article": f"article-{number % 59}", "quantity": 1},
            ],
        },
        separators=(",", ":"),
    ).encode()


def order_headers(number: int) -> list[tuple[str, bytes]]:
    """A CloudEvent in binary mode, written by hand: the load is a producer that is not ours."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", order_id(number).encode()),
        ("ce_source", b"/benchmarks"),
        ("ce_type", SOURCE_TYPE.encode()),
        ("content-type", b"application/json"),
    ]
