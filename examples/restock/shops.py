"""The shops of the chain: they are asked what they need, and get it. Stands in for their tills.

What a shop answers is a digest of its name, the item and the run, so a repeated attempt hears the same.
"""

import asyncio
import hashlib

from model import Delivery, Need

from headrace import Retry, current_attempt, handler

SHOPS = tuple(
    f"{town}-{number}"
    for town in ("bergen", "cork", "dijon", "evora", "faro", "gent", "hull", "izmir")
    for number in (1, 2, 3)
)


class TillBusy(ConnectionError):
    """The till of a shop does not answer just now."""


@handler(timeout="1s", retry=Retry(attempts=6, delay="100ms", on=(TillBusy, TimeoutError)))
async def count_need(item: str, shop: str) -> Need:
    """Ask one shop how many pieces it lacks; many lack none. Every eighth till is busy the first time."""
    attempt = attempt_number()
    await asyncio.sleep(0.02 + 0.06 * share(shop, item, attempt))
    if attempt == 1 and share("busy", shop, item) < 1 / 8:
        raise TillBusy(f"The till of {shop} is busy")
    return Need(shop, item, max(0, int(30 * share("need", shop, item)) - 12))


@handler(timeout="2s", retry=Retry(attempts=6, delay="100ms"))
async def deliver(need: Need) -> Delivery:
    """Load a van."""
    await asyncio.sleep(0.03 + 0.05 * share("van", need.shop))
    return Delivery(need.shop, need.item, need.quantity, van=f"V-{1 + int(6 * share('which', need.shop))}")


def share(*about: object) -> float:
    """From 0 (included) to 1 (not), the same whenever it is asked about the same."""
    digest = hashlib.sha256("\0".join(map(str, about)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def attempt_number() -> int:
    """The attempt being made; 1 when a handler is called directly, as in a unit test."""
    try:
        return current_attempt().number
    except LookupError:
        return 1
