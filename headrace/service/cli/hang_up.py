"""Whether anybody still reads what a following command prints: `| head` goes when it has its lines, and the next one may be long in coming."""

from __future__ import annotations

import os
import select
import stat
import sys

import anyio

_LOOK_EVERY_S = 0.2


async def reader_gone() -> None:
    """Return when nobody reads stdout any more. For ever, where it is neither a pipe nor a socket."""
    try:
        stdout = sys.stdout.fileno()
    except (OSError, ValueError):  # closed, or no file
        await anyio.sleep_forever()
        return
    mode = os.fstat(stdout).st_mode
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        await anyio.sleep_forever()
    poll = select.poll()
    poll.register(stdout, 0)  # an error and a hang-up are told unasked
    while not poll.poll(0):  # noqa: ASYNC110 - nobody sets an event when a reader goes
        await anyio.sleep(_LOOK_EVERY_S)
