"""The systems outside, which fail: how they behave today. Stands in for networks that nobody can put into an example.

Whether a call fails is a digest of seed, system, order and attempt, never chance: the same seed gives the same
failures, after a restart too. An attempt that failed may succeed as the next one, which is what retries are for.
"""

import asyncio
import hashlib
import os
from enum import StrEnum

from headrace import current_attempt

DEFAULT_SEED = "7"

OUTAGE_EVERY = 400  # orders from one outage of the inventory system to the next
OUTAGE_ORDERS = 12  # how many orders' checks it swallows; by then the breaker is open


class Trouble(StrEnum):
    """How one call goes wrong."""

    NONE = "none"
    ERROR = "error"
    SILENCE = "silence"  # no answer; the attempt's timeout ends it


class SystemDown(ConnectionError):
    """A system answered with an error."""


def seed() -> str:
    """`HEADRACE_DEMO_SEED`, which `headrace dev --feed --seed` sets."""
    return os.environ.get("HEADRACE_DEMO_SEED", DEFAULT_SEED)


def chance(*about: object) -> float:
    """A number from 0 (included) to 1 (not), the same whenever it is asked about the same."""
    text = "\0".join([seed(), *map(str, about)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / (1 << 48)


def trouble(system: str, order: str, attempt: int, *, errors: float, silences: float) -> Trouble:
    """How attempt `attempt` (from 1) to reach `system` for `order` goes. `errors` and `silences` are shares of all."""
    drawn = chance("trouble", system, order, attempt)
    if drawn < silences:
        return Trouble.SILENCE
    return Trouble.ERROR if drawn < silences + errors else Trouble.NONE


def in_outage(order: str) -> bool:
    """Whether the inventory system is down when it is asked about this order. Goes by the number in the order's id."""
    number = order.rpartition("-")[2]
    if not number.isdecimal():
        return False
    begins = 40 + int(60 * chance("outage"))
    return begins <= int(number) % OUTAGE_EVERY < begins + OUTAGE_ORDERS


async def reach(system: str, order: str, *, errors: float = 0.0, silences: float = 0.0, latency_ms: int = 50) -> None:
    """Call a system: it takes a moment (50 to 150 % of `latency_ms`), fails, or stays silent. Raises SystemDown."""
    attempt = attempt_number()
    what = trouble(system, order, attempt, errors=errors, silences=silences)
    if what is Trouble.SILENCE:
        await silence()
    await asyncio.sleep(latency_ms / 1000 * (0.5 + chance("latency", system, order, attempt)))
    if what is Trouble.ERROR:
        raise SystemDown(f"{system} answered 503 to attempt {attempt} for order {order}")


async def silence() -> None:
    """Wait for an answer that does not come."""
    await asyncio.Event().wait()


def attempt_number() -> int:
    """The attempt being made; 1 when a handler is called directly, as in a unit test."""
    try:
        return current_attempt().number
    except LookupError:
        return 1


def once_key(order: str) -> str:
    """What the other side recognises a repeated call by: the task's idempotency key, the same for all its attempts."""
    try:
        key = current_attempt().idempotency_key
    except LookupError:
        key = order
    return hashlib.sha256(key.encode()).hexdigest()[:10]
