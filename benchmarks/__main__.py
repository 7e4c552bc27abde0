"""`python -m benchmarks`: everything, in one go. `--only kafka-burst --burst 5000 --profile DIR` looks at one thing."""

import argparse
import asyncio
import sys
from pathlib import Path

from benchmarks.bench import Figures, Setup, measure, measure_often
from benchmarks.machine import machine
from benchmarks.program import ProgramFailed
from benchmarks.report import Report, keep, text
from benchmarks.scenario import Loads, Scenario, TargetName, scenarios
from tests.kafka_broker.broker import BrokerFailed, KafkaBroker
from tests.kafka_broker.jars import KafkaUnavailable

RESULTS = Path(__file__).parent / "results"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--burst", type=int, default=20_000, help="orders of the burst (default: 20000)")
    parser.add_argument("--rates", default="50,200,1000", help="orders a second, with commas (default: 50,200,1000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured at each rate (default: 20)")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds before that, left out (default: 3)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="times that a burst is done; the median counts (default: 3)"
    )
    parser.add_argument("--only", default="", help="names such as kafka-burst, kafka-*, floor; with commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of Headrace")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="run the services under cProfile; DIR/<name>.prof")
    parser.add_argument(
        "--out", type=Path, help="where to keep the figures (default: benchmarks/results, if all were run)"
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    return parser.parse_args()


async def run_all(chosen: list[Scenario], given: argparse.Namespace) -> list[Figures]:
    """One broker, one scenario after the other. Before the first a burst that nobody counts: the broker compiles itself."""
    done: list[Figures] = []
    async with KafkaBroker(steady=True) as broker:
        setup = Setup(broker.bootstrap_servers, broker.pid, given.set, given.profile)
        await measure(Scenario(TargetName.FLOOR, 0, given.burst, 0), setup)
        for scenario in chosen:
            times = 1 if scenario.rate or given.profile else given.repeat
            print(f"{scenario.name}: {scenario.orders} orders ({times} x) ...", file=sys.stderr, flush=True)
            try:
                done.append(await measure_often(scenario, setup, times))
            except ProgramFailed as error:
                print(f"{scenario.name} has no figures: {error}", file=sys.stderr, flush=True)
    return done


def main() -> int:
    """0: all sound; 1: an order lost or doubled, a part that failed, or no Kafka on this machine."""
    given = options()
    rates = [float(rate) for rate in given.rates.split(",") if rate]
    loads = Loads(given.burst, rates, given.seconds, given.warm_up)
    only = [name for name in given.only.split(",") if name]
    chosen = scenarios(loads, only)
    if given.list or not chosen:
        print(*(one.name for one in chosen or scenarios(loads)), sep="\n")
        return 0 if given.list else 2
    if given.profile:
        given.profile = given.profile.absolute()
        given.profile.mkdir(parents=True, exist_ok=True)
    where = machine()
    try:
        figures = asyncio.run(run_all(chosen, given))
    except (BrokerFailed, KafkaUnavailable, ProgramFailed) as error:
        print(error, file=sys.stderr)
        return 1
    report = Report(machine=where, loads=loads._asdict(), settings=given.set, figures=figures)
    print(text(report))
    all_there = len(figures) == len(chosen)
    out = given.out or (None if only or given.profile or not all_there else RESULTS)
    if out is not None:
        print(f"Kept in {keep(report, out).name} and latest.md.", file=sys.stderr)
    return 0 if all_there and all(one.sound for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
