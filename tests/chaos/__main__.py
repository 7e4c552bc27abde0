"""`python -m tests.chaos [--lines X1,X2] [--scale ci|full|long] [--lanes N] [--soak SECONDS] [--seed N] [--json FILE]`: run lines, print the table.

Exit code 1 if a line failed, 3 if none failed and one is void.
"""

import argparse
import asyncio
import platform
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.lanes import side_by_side
from tests.chaos.line import Bench, Line, Outcome, Scale, Tally
from tests.chaos.lines import LINES
from tests.chaos.lines.soak import run_soak
from tests.chaos.report import table, write


async def run(lines: list[Line], scale: Scale, seed: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    async with Bench() as bench:
        for line in lines:
            print(f"{line.id}  {line.title} ...", file=sys.stderr, flush=True)
            began = time.monotonic()
            try:
                outcome = await line.outcome(bench, scale, seed)
            except Exception:
                tally = Tally()
                tally.violations.append(f"the line itself ended: {traceback.format_exc()[-3000:]}")
                outcome = tally.outcome(line, time.monotonic() - began)
            print(table([outcome]), file=sys.stderr, flush=True)
            outcomes.append(outcome)
    return outcomes


def soak_of(seconds: float, leak_bytes: int, *, light: bool) -> Line:
    async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
        await run_soak(bench, seconds, seed, tally, light=light, leak_bytes=leak_bytes)

    return Line("L7", f"a soak of {seconds:g} s: memory stays flat, the log is trimmed", run_line)


def main(arguments: Sequence[str] | None = None) -> int:
    known = ", ".join(line.id for line in LINES)
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--lines", default="all", help=f"ids with commas; known: {known}")
    parser.add_argument("--scale", type=Scale, choices=list(Scale), default=Scale.CI)
    parser.add_argument("--soak", type=float, default=None, help="seconds of soak instead of lines, such as 3600")
    parser.add_argument("--light", action="store_true", help="nine of ten runs of the soak are a single call")
    parser.add_argument(
        "--leak", type=int, default=0, help="bytes that each run of the soak leaves behind, to see it fail"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=None, help="lines at a time; 2 unless the scale is ci")
    parser.add_argument("--json", type=Path, default=None, help="where the JSON goes")
    given = parser.parse_args(arguments)
    everything = [line.id for line in LINES if line.id != "L7"]
    wanted = everything if given.lines in {"", "all"} else given.lines.upper().split(",")
    if unknown := set(wanted) - {line.id for line in LINES}:
        parser.error(f"unknown lines {sorted(unknown)}; known: {known}")
    if given.soak is not None and given.soak <= 0:
        parser.error("--soak must be above 0")
    if given.soak is not None and given.lines not in {"", "all", "L7"}:
        parser.error("--soak runs instead of lines: leave --lines away")
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # brokers and workers are ended too
    chosen = (
        [line for line in LINES if line.id in wanted]
        if given.soak is None
        else [soak_of(given.soak, given.leak, light=given.light)]
    )
    lanes = given.lanes or (1 if given.scale is Scale.CI else 2)
    if len(chosen) > 1 and lanes > 1:
        outcomes = asyncio.run(side_by_side(chosen, given.scale, given.seed, lanes))
    else:
        outcomes = asyncio.run(run(chosen, given.scale, given.seed))
    print(table(outcomes))
    if given.json is not None:
        facts = {
            "scale": given.scale,
            "seed": given.seed,
            "seconds": round(time.monotonic() - began, 1),
            "python": platform.python_version(),
        }
        write(outcomes, given.json, facts)
    verdicts = {outcome.verdict for outcome in outcomes}
    return 1 if "failed" in verdicts else 3 if "void" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
