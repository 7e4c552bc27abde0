"""What both loads share: wait for the word, send each order when it is due, say how punctual that was.

A load prints `ready`, waits for a line on standard input, sends, and prints one line of JSON, `Sent`.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

import msgspec

from benchmarks.figures import Spread, spread
from benchmarks.pacer import Pacer

Send = Callable[[int, float], Awaitable["asyncio.Future[Any]"]]
"""Hand the order of this number, due at this time (us), to the client; the future is done when the log has it."""


class Sent(msgspec.Struct, frozen=True):
    """`start_us`: of the schedule. `late_ms`: handed over after due; `acknowledged_ms`: in the log after due."""

    start_us: float
    late_ms: Spread
    acknowledged_ms: Spread

    @classmethod
    def at_once(cls, start_us: float) -> Self:
        """Of a burst: nobody consumes yet, so there is nothing to be punctual for."""
        return cls(start_us, spread([]), spread([]))


def options(description: str | None, target: str) -> argparse.Namespace:
    """The command line. `target` is the option that says where the log is."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(target, required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="orders a second; 0: as fast as it goes")
    return parser.parse_args()


async def word() -> None:
    """Say that we are ready and wait for the line that starts us."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def say(sent: Sent) -> None:
    print(msgspec.json.encode(sent).decode(), flush=True)


async def send_on_time(pacer: Pacer, send: Send) -> Sent:
    """The open loop: orders leave by the schedule; what the log is doing changes nothing about that."""
    late_ms: list[float] = []
    acknowledged_ms: list[float] = []
    futures: list[asyncio.Future[Any]] = []

    def acknowledged(due_us: float) -> Callable[[asyncio.Future[Any]], None]:
        return lambda _: acknowledged_ms.append((pacer.now_us() - due_us) / 1e3)

    async for number in pacer:
        due_us = pacer.schedule.due_us(number)
        late_ms.append((pacer.now_us() - due_us) / 1e3)
        future = await send(number, due_us)
        future.add_done_callback(acknowledged(due_us))
        futures.append(future)
    await asyncio.gather(*futures)  # raises what went wrong
    return Sent(pacer.schedule.start_us, spread(late_ms), spread(acknowledged_ms))
