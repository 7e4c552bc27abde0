"""A user's own module, called like a part of Headrace: what the shop knows."""  # noqa: INP001

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    id: str
    item: str
    total: int


@dataclass(frozen=True)
class Stock:
    available: bool


@dataclass(frozen=True)
class Invoice:
    number: str


@dataclass(frozen=True)
class Shipment:
    tracking: str


@dataclass(frozen=True)
class Receipt:
    invoice: Invoice | None
    shipment: Shipment | None


def in_stock(item: str) -> bool:
    return item != "unicorn"
