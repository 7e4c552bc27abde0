"""`let_go`: the end of an aiokafka client whose broker was away."""

import asyncio
from collections.abc import Coroutine
from typing import Any

_PATIENCE_S = 5.0


async def let_go(stop: Coroutine[Any, Any, None]) -> None:
    """Await a client's `stop`, but not for ever. Whatever it raises is its own affair: it may even be the cancellation of one of its tasks."""
    task = asyncio.get_running_loop().create_task(stop)
    await asyncio.wait([task], timeout=_PATIENCE_S)
    task.cancel()
    if task.done() and not task.cancelled():
        task.exception()  # looked at
