"""Waiting for a state of another process: look, again and again, until it is so or patience ends."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from headrace.topics.errors import Transient

T = TypeVar("T")
PATIENCE_S = 60.0  # for what must happen; no test asserts how fast it did
_BETWEEN_LOOKS_S = 0.03


async def eventually(look: Callable[[], Awaitable[T | None]], what: object, *, patience_s: float = PATIENCE_S) -> T:
    """The first true thing that `look` gives; `what` describes the wish (call it for news of the moment) if it stays out."""
    ends = time.monotonic() + patience_s
    while True:
        try:
            found = await look()
        except Transient:
            found = None
        if found:
            return found
        if time.monotonic() > ends:
            raise AssertionError(f"Not within {patience_s:g} s: {what() if callable(what) else what}")
        await anyio.sleep(_BETWEEN_LOOKS_S)


async def eventually_now(look: Callable[[], T | None], what: object, *, patience_s: float = PATIENCE_S) -> T:
    """The same, for a look that needs no waiting itself."""

    async def asked() -> T | None:
        return look()

    return await eventually(asked, what, patience_s=patience_s)


async def happens(look: Callable[[], object], *, patience_s: float = PATIENCE_S) -> bool:
    """Whether it comes to be so before patience ends: for what need not happen."""
    try:
        await eventually_now(look, "", patience_s=patience_s)
    except AssertionError:
        return False
    return True
