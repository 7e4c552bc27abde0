"""Attempts to make, and a guard to make them."""

import asyncio
from typing import Any

from headrace.handlers.definition import Handler
from headrace.handlers.guard import Guard
from headrace.handlers.result import Abandoned, AttemptCall
from headrace.handlers.threads import HandlerThreads
from headrace.topics.errors import Cause

RESULT_BYTES_MAX = 1_000


def call_of(handler: Handler[*tuple[Any, ...], Any], *args: object, **fields: Any) -> AttemptCall:
    defaults: dict[str, Any] = {
        "run_id": "3.abc",
        "workflow": "shop",
        "task": f"/1/{handler.name}",
        "number": 1,
        "idempotency_key": "key-1",
        "arguments": handler.arguments.encode(args),
        "timeout_ms": 2_000,
        "now_ms": 1_795_257_000_000,
        "cause_on_timeout": Cause.TIMED_OUT,
    }
    return AttemptCall(**(defaults | fields))


class Watched:
    """A guard whose abandoned handlers are kept. For use on a running loop."""

    def __init__(self, threads: int = 4) -> None:
        self.abandoned: list[Abandoned] = []
        self.threads = HandlerThreads(threads)
        self.guard = Guard(
            threads=self.threads,
            result_bytes_max=RESULT_BYTES_MAX,
            abandoned=self.abandoned.append,
            clock=asyncio.get_running_loop().time,
        )
