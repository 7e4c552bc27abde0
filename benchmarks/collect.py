"""What both collectors share: count results until every order has one, wait a moment for doubles, write them down.

A collector prints `ready`, reads until it is done (or nothing came for `patience_s`), writes a JSON array of `Result`
to `--into`, and prints `done`.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from benchmarks.figures import Result

SETTLE_S = 1.0  # a double would follow within a resend


class _Named(msgspec.Struct, gc=False):
    order: str


_DECODER = msgspec.json.Decoder(_Named)


def options(description: str | None, target: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(target, required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, required=True, help="how many orders there are")
    parser.add_argument("--into", type=Path, required=True, help="file to write")
    parser.add_argument("--patience-s", type=float, default=30.0, help="give up after so long without a result")
    parser.add_argument("--lazy", action="store_true", help="look ten times a second: cheaper, receipt times are late")
    return parser.parse_args()


def result_of(value: bytes | None, appended_ms: int, received_us: float) -> Result:
    """Raises what msgspec raises for a record that is no result: then the benchmark measures something else."""
    return Result(_DECODER.decode(value or b"").order, appended_ms, received_us)


class Collection:
    """Results so far. `more` is the loop's condition: False once all are there and settled, or patience is over."""

    def __init__(self, count: int, patience_s: float) -> None:
        self.results: list[Result] = []
        self._orders: set[str] = set()
        self._count = count
        self._patience_s = patience_s
        self._newest_s = time.monotonic()

    def add(self, result: Result) -> None:
        self.results.append(result)
        self._orders.add(result.order)
        self._newest_s = time.monotonic()

    @property
    def more(self) -> bool:
        idle_s = time.monotonic() - self._newest_s
        return idle_s < (SETTLE_S if len(self._orders) >= self._count else self._patience_s)


async def collect(arguments: argparse.Namespace, results: AsyncIterator[list[Result]]) -> None:
    """Drain `results` (which yields at least once a second, an empty list if need be) until the collection is full."""
    collection = Collection(arguments.count, arguments.patience_s)
    print("ready", flush=True)
    while collection.more:
        for result in await anext(results):
            collection.add(result)
        if arguments.lazy:
            await asyncio.sleep(0.1)
    arguments.into.write_bytes(msgspec.json.encode(collection.results))
    print("done", flush=True)
