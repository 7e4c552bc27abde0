"""`loop.stop()` in a handler would end the process in the middle of everything, and nothing would say who did it. So it raises there.

Called once by whoever runs the process's event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.handlers.attempt import current_attempt

if TYPE_CHECKING:
    import asyncio


def refuse_stop_to_handlers(loop: asyncio.AbstractEventLoop) -> None:
    """From now on `loop.stop` raises RuntimeError in an attempt, and in what an attempt has begun: tasks, threads, callbacks."""
    stop = loop.stop

    def stop_unless_in_attempt() -> None:
        try:
            attempt = current_attempt()
        except LookupError:
            return stop()
        raise RuntimeError(
            f"{attempt.task} of run {attempt.run_id} may not stop the event loop: all runs of the process live in it. "
            "A handler ends by returning or raising."
        )

    loop.stop = stop_unless_in_attempt
