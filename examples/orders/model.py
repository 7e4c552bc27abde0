"""What travels: the order that comes in, the answers of the systems, the events that go out.

`Order` comes from outside, so it is a pydantic model: an order that does not fit it goes to `orders.dlq`, with the
reason. The rest is ours: plain dataclasses.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field


class Order(BaseModel, frozen=True):
    """A customer's order. `total_cents` is what the card is charged."""

    id: str = Field(min_length=1, max_length=64)
    customer: str = Field(min_length=1)
    email: str = Field(pattern=r"^\S+@\S+$")
    item: str = Field(min_length=1)
    quantity: int = Field(ge=1, le=1000)
    total_cents: int = Field(ge=1)


@dataclass(frozen=True)
class Stock:
    """What is on the shelf. `source`: the live system, or the list of last night."""

    available: bool
    source: Literal["live", "list"]


@dataclass(frozen=True)
class Reservation:
    id: str
    item: str
    quantity: int


@dataclass(frozen=True)
class Payment:
    reference: str
    amount_cents: int


@dataclass(frozen=True)
class Invoice:
    number: str
    text: str


@dataclass(frozen=True)
class Shipment:
    carrier: str
    tracking: str


@dataclass(frozen=True)
class Receipt:
    """The result of a run; it stays in the run log."""

    order: str
    status: Literal["fulfilled", "back-ordered"]
    tracking: str | None = None


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrderFulfilled:
    order: str
    invoice: str
    tracking: str
    stock: Literal["live", "list"]


@dataclass(frozen=True)
class OrderBackOrdered:
    order: str
    item: str
    quantity: int


@dataclass(frozen=True)
class OrderFailed:
    """`step` is the handler that failed for good, `reason` is for people."""

    order: str
    step: str
    reason: str
    attempts: int


@dataclass(frozen=True)
class SystemDegraded:
    """For the admin: an order had to do without `system`."""

    system: str
    order: str
    cause: str
    reason: str
    instead: str
