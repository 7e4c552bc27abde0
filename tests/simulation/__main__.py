"""`python -m tests.simulation --seeds N`: run many simulations, in parallel, and say what broke.

Always under hash seed 0, so that a seed is the same everywhere. A failing seed is printed with its violations and the command that shows it whole; `--keep`
cuts its plan down and writes it to `tests/simulation/kept`, where it is a regression test from then on.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

from headrace.service.fault_point import FaultPoint
from tests.simulation.minimise import minimised
from tests.simulation.plan import PROFILES, Plan, plan_of
from tests.simulation.world import Report, simulate

KEPT = Path(__file__).parent / "kept"
_CHUNK = 20  # seeds that a worker takes at once


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, default=None, help="one seed, shown whole")
    parser.add_argument("--twice", type=int, default=0, help="run every so-manieth seed twice and compare the traces")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many failing seeds")
    parser.add_argument("--keep", action="store_true", help="minimise failing seeds and keep their plans")
    parser.add_argument("--kept", action="store_true", help="the plans that failed once come first")
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    parser.add_argument("--profile", choices=PROFILES, default="", help="what every seed has on top of what it draws")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _show(options.seed, options.profile)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1: nothing tried is nothing passed")
    return _many(options)


def _show(seed: int, profile: str) -> int:
    plan = plan_of(seed, profile)
    report = simulate(plan)
    print(msgspec.json.format(msgspec.json.encode(plan)).decode())
    print(
        f"trace {report.trace}, fired {report.fired}, {report.records} records, {report.virtual_s:.0f} virtual seconds"
    )
    print("\n".join(report.dump))
    print("\n".join(report.violations) or "nothing broken")
    return 1 if report.violations else 0


def run_seeds(seeds: Sequence[int], twice: int, profile: str = "") -> list[Report]:
    """Simulate some seeds, in this process."""
    gc.freeze()
    reports: list[Report] = []
    for seed in seeds:
        report = simulate(plan_of(seed, profile))
        if twice and seed % twice == 0:
            again = simulate(plan_of(seed, profile))
            if again.trace != report.trace:
                report.violations.append(f"the same seed gave another trace: {report.trace}, then {again.trace}")
        reports.append(report)
    gc.collect()
    return reports


def _many(options: argparse.Namespace) -> int:
    began = time.monotonic()
    total = Counter[str]()
    fired: Counter[str] = Counter()
    failures: list[Report] = []
    last = began
    for report in _reports(options):
        total["seeds"] += 1
        for name in ("records", "stale", "effects", "compared", "turns", "children", "given_up"):
            total[name] += getattr(report, name)
        total["virtual_ms"] += round(report.virtual_s * 1000)
        fired.update(report.fired)
        if report.violations:
            failures.append(report)
            print(f"seed {report.seed}:", *report.violations[:3], sep="\n    ", flush=True)
            asked = f" --profile {options.profile}" if options.profile else ""
            print(f"    python -m tests.simulation --seed {report.seed}{asked}", flush=True)
        now = time.monotonic()
        if now - last > 30:
            last = now
            print(
                f"... {total['seeds']} seeds, {total['seeds'] / (now - began):.1f}/s, {len(failures)} failing",
                flush=True,
            )
        if len(failures) >= options.failures or (options.seconds and now - began > options.seconds):
            break
    seconds = time.monotonic() - began
    _summary(options, total, fired, failures, seconds)
    if options.keep:
        for report in failures:
            keep(plan_of(report.seed, options.profile), report)
    return 1 if failures else 0


def _reports(options: argparse.Namespace) -> Iterator[Report]:
    """One by one, as they come."""
    if options.kept:
        for plan in kept().values():
            yield simulate(plan)
    chunks = [
        range(begin, min(begin + _CHUNK, options.first + options.seeds))
        for begin in range(options.first, options.first + options.seeds, _CHUNK)
    ]
    if options.jobs == 1:
        for chunk in chunks:
            yield from run_seeds(chunk, options.twice, options.profile)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        try:
            ahead = [pool.submit(run_seeds, chunk, options.twice, options.profile) for chunk in chunks]
            for future in ahead:
                yield from future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _summary(
    options: argparse.Namespace, total: Counter[str], fired: Counter[str], failures: list[Report], seconds: float
) -> None:
    pairs = {what for what in fired if " at " in what}
    reached = {what.partition(" at ")[2] for what in pairs}
    never = [str(point) for point in FaultPoint if str(point) not in reached]
    figures = {
        "first": options.first,
        "seeds": total["seeds"],
        "seconds": round(seconds, 1),
        "seeds_per_second": round(total["seeds"] / seconds, 1),
        "virtual_seconds_per_second": round(total["virtual_ms"] / 1000 / seconds),
        "records": total["records"],
        "stale_records": total["stale"],
        "effects": total["effects"],
        "states_compared": total["compared"],
        "results_of_children": total["children"],
        "children_given_up": total["given_up"],
        "faults_fired": sum(fired.values()),
        "points_struck": len(reached),
        "fault_and_point_pairs": len(pairs),
        "points_never_struck": never,
        "failing_seeds": [report.seed for report in failures],
    }
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print("other faults".ljust(28), {what: count for what, count in sorted(fired.items()) if " at " not in what})
    if options.json is not None:
        options.json.write_text(json.dumps({**figures, "fired": dict(sorted(fired.items()))}, indent=1) + "\n")


def keep(plan: Plan, report: Report) -> Path:
    """Cut the plan down and write it where the tests find it."""
    what = report.violations[0].split("] ")[1][:3]

    def fails(smaller: Plan) -> bool:
        found = simulate(smaller).violations
        return bool(found) and found[0].split("] ")[1][:3] == what

    small = minimised(plan, fails)
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{what.strip().lower()}_{plan.seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(small), indent=1) + b"\n")
    print(
        f"kept {path.name}: {len(small.arrivals)} inputs, {len(small.faults)} faults, {small.instances} instances",
        flush=True,
    )
    return path


def kept() -> dict[str, Plan]:
    """Plans that failed once."""
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Plan) for path in sorted(KEPT.glob("*.json"))}


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())
