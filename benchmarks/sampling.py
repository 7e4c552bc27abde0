"""`python -m benchmarks.sampling`: what traces cost. Bursts without an exporter and with some runs sampled, in turns, on one broker.

The collector runs in this process, so its work is not counted. CPU a run says more than runs a second: a machine's speed moves, and
both of a pair move with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench import Figures, Setup, measure
from benchmarks.scenario import Scenario, TargetName
from tests.kafka_broker.broker import KafkaBroker
from tests.observability.otlp_receiver import OtlpReceiver

_LIMIT = 1.03


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--burst", type=int, default=8_000, help="orders of a burst (default: 8000)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of bursts (default: 5)")
    parser.add_argument("--ratio", type=float, default=0.01, help="runs that are sampled (default: 0.01)")
    return parser.parse_args()


@contextmanager
def sampled(receiver: OtlpReceiver, ratio: float) -> Iterator[None]:
    """Services that are started meanwhile export."""
    given = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(ratio),
    }
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]


async def pair(setup: Setup, receiver: OtlpReceiver, given: argparse.Namespace, number: int) -> tuple[Figures, Figures]:
    """One burst without and one with; which of them is first changes from pair to pair."""
    burst = Scenario(TargetName.KAFKA, 0, given.burst, 0)

    async def traced() -> Figures:
        with sampled(receiver, given.ratio):
            return await measure(burst, setup)

    if number % 2:
        second = await traced()
        return await measure(burst, setup), second
    return await measure(burst, setup), await traced()


async def main(given: argparse.Namespace) -> int:
    """0: at most 3 % more CPU; 1: more, or an order was lost."""
    ratios: list[float] = []
    with OtlpReceiver() as receiver:
        async with KafkaBroker() as broker:
            setup = Setup(broker.bootstrap_servers, broker.pid, [], None)
            await measure(Scenario(TargetName.FLOOR, 0, given.burst, 0), setup)  # the broker compiles itself
            for number in range(given.rounds):
                plain, traced = await pair(setup, receiver, given, number)
                if not (plain.sound and traced.sound):
                    print("an order was lost or doubled", file=sys.stderr)
                    return 1
                ratios.append(traced.cpu_us_per_run / plain.cpu_us_per_run)
                print(
                    f"{number + 1}: {plain.cpu_us_per_run:.0f} us a run, {plain.runs_per_s:.0f} runs/s without; "
                    f"{traced.cpu_us_per_run:.0f} us, {traced.runs_per_s:.0f} runs/s with; CPU x {ratios[-1]:.3f}",
                    flush=True,
                )
        spans = 0
        while receiver.requests.qsize():
            spans += sum(
                len(scope.spans)
                for resource in receiver.requests.get().resource_spans
                for scope in resource.scope_spans
            )
    median = statistics.median(ratios)
    low, high = min(ratios), max(ratios)
    print(
        f"{given.ratio:.0%} sampled costs x {median:.3f} CPU a run (median of {given.rounds}; {low:.3f} to {high:.3f})"
    )
    print(f"{spans} spans came, of {given.burst * given.rounds} runs")
    return 0 if median <= _LIMIT and spans else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options())))
