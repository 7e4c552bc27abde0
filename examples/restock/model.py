"""What travels between shops, warehouse and supplier."""

from dataclasses import dataclass

from pydantic import BaseModel, Field


class Signal(BaseModel, frozen=True):
    """An item runs low somewhere: a shop's counter says so, or a person asks for more."""

    item: str = Field(min_length=1)
    shop: str = Field(min_length=1)
    left: int = Field(ge=0)
    minimum: int = Field(ge=0)


@dataclass(frozen=True)
class Need:
    """What one shop lacks."""

    shop: str
    item: str
    quantity: int


@dataclass(frozen=True)
class SupplierOrder:
    """`ready_in_s` is when the supplier wants to have it at the warehouse, in seconds from the order."""

    number: str
    item: str
    quantity: int
    ready_in_s: int


@dataclass(frozen=True)
class Delivery:
    shop: str
    item: str
    quantity: int
    van: str


@dataclass(frozen=True)
class Restocked:
    """The result event: who got how much. Nobody may have needed any."""

    item: str
    quantity: int
    deliveries: list[Delivery]
    supplier_order: str | None
