"""`python -m benchmarks.sampling`: what traces cost, as a share of a run's CPU, with an interval.

Two services in one process, each on an embedded log of its own: one without an exporter, one that samples some runs. They get short bursts in
turns, plain, traced, traced, plain: what makes the machine faster or slower for a while is in both halves of such a round, and the median of
many rounds has a narrow interval. Counted is the CPU of the whole process within a burst; the exporter's thread is counted apart, over
everything, because it sends when it likes. The collector is another process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from benchmarks.load_embedded import placed
from headrace.observability.silent import Silent
from headrace.observability.told_run import RunFinished
from headrace.service.composition import Started, serve
from headrace.service.definitions.app import App
from headrace.service.definitions.loader import load_app
from headrace.service.log_backend import log_of
from headrace.service.settings import Settings
from headrace.topics.log import Log, NewRecord, TopicPartition
from tests.observability.otlp_receiver import OtlpReceiver

APP: Final = Path(__file__).parent / "app" / "app.py"
EXPORTER: Final = "OtelBatchSpanRecordProcessor"
"""The name of the SDK's thread."""
_LIMIT: Final = 1.03
_WARM_UP: Final = 3  # bursts that are not counted, of each
_SURE: Final = 1.96  # standard deviations: 95 %


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--burst", type=int, default=500, help="orders of a burst (default: 500)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of four bursts (default: 40)")
    parser.add_argument("--ratio", type=float, default=0.01, help="runs that are sampled (default: 0.01)")
    return parser.parse_args()


class Finished(Silent):
    """Sets `all` when so many runs have ended as were `expect`ed."""

    def __init__(self) -> None:
        self.all = asyncio.Event()
        self._left = 0

    def expect(self, runs: int) -> None:
        self._left = runs
        self.all.clear()

    def run_finished(self, _: RunFinished, /) -> None:
        self._left -= 1
        if not self._left:
            self.all.set()


class Side:
    """One of the two services, and the way in."""

    def __init__(self, log: Log, finished: Finished) -> None:
        self._log = log
        self._finished = finished
        self._sent = 0

    async def burst(self, orders: int) -> float:
        """CPU of the process, without the exporter's thread, until all orders are done: microseconds a run."""
        self._finished.expect(orders)
        before = time.process_time() - exporter_s()
        batches: dict[TopicPartition, list[NewRecord]] = {}
        for _ in range(orders):
            at, record = placed("orders", self._sent)
            self._sent += 1
            batches.setdefault(at, []).append(record)
        for at, records in batches.items():
            await self._log.publish(at, records)
        await self._finished.all.wait()
        return (time.process_time() - exporter_s() - before) * 1e6 / orders


def exporter_s() -> float:
    """CPU of the exporter's thread so far; 0 without one."""
    return sum(
        time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.name == EXPORTER and thread.ident is not None
    )


@asynccontextmanager
async def side(folder: Path, app: App) -> AsyncGenerator[Side]:
    """A service that works, with the environment of this moment."""
    settings = Settings.model_validate(
        {
            "log": {"path": folder / "log.sqlite", "partitions": 8},
            "api": {"enabled": False},
            "telemetry": {"metrics_port": 0, "log_level": "error", "log_format": "json"},
        }
    )
    stop, started, finished = asyncio.Event(), asyncio.Event(), Finished()

    def ready(_: Started) -> None:
        started.set()

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(
            serve(settings, app, stop=stop, create_topics=True, started=ready, observers=[finished])
        )
        await started.wait()
        async with log_of(settings, owner=False) as log:
            yield Side(log, finished)
        stop.set()
        await serving


def _collect(told: Connection) -> None:
    """The collector's process: says its address, then, when asked, how many spans came."""
    with OtlpReceiver() as receiver:
        told.send(receiver.endpoint)
        told.recv()
        told.send(len(receiver.spans()))


@contextmanager
def collector() -> Generator[Connection]:
    """The other end of `_collect`."""
    ours, its = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=(its,), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


@contextmanager
def sampled(endpoint: str, ratio: float) -> Generator[None]:
    """Services that are started meanwhile export."""
    given = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(ratio),
    }
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """In which the median of all such values lies, 95 % sure: order statistics, whatever their distribution."""
    ordered, count = sorted(values), len(values)
    reach = _SURE * math.sqrt(count) / 2
    return ordered[max(0, math.floor(count / 2 - reach))], ordered[min(count - 1, math.ceil(count / 2 + reach))]


async def main(given: argparse.Namespace) -> int:
    """0: at most 3 % more CPU, as far as the interval tells; 1: more, or no span came."""
    app = load_app(APP)
    async with AsyncExitStack() as stack:
        told = stack.enter_context(collector())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "plain").mkdir()
        (folder / "traced").mkdir()
        plain = await stack.enter_async_context(side(folder / "plain", app))
        with sampled(told.recv(), given.ratio):
            traced = await stack.enter_async_context(side(folder / "traced", app))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)  # as a service process does
        for _ in range(_WARM_UP):
            await plain.burst(given.burst)
            await traced.burst(given.burst)
        without: list[float] = []
        ratios: list[float] = []
        sent_s, runs = exporter_s(), 2 * given.rounds * given.burst
        for _ in range(given.rounds):
            first = await plain.burst(given.burst)
            with_traces = await traced.burst(given.burst) + await traced.burst(given.burst)
            without.append((first + await plain.burst(given.burst)) / 2)
            ratios.append(with_traces / 2 / without[-1])
        await asyncio.sleep(6)  # the exporter sends every 5 s
        sent_us = (exporter_s() - sent_s) * 1e6 / runs
        told.send("spans")
        spans = await asyncio.to_thread(told.recv)
    base = statistics.median(without)
    apart = sent_us / base
    low, high = (each + apart for each in interval(ratios))
    print(
        f"{given.ratio:.0%} sampled costs x {statistics.median(ratios) + apart:.3f} CPU a run "
        f"({low:.3f} to {high:.3f}, 95 % sure, {given.rounds} rounds); without: {base:.0f} us a run, the exporter's thread: {sent_us:.1f} us a run"
    )
    print(f"{spans} spans came, of {runs} runs")
    return 0 if low <= _LIMIT and spans else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options())))
