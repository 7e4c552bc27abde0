"""Lines side by side, each in a process with brokers of its own. Those that hold speeds against each other come last, one at a time.

A line mostly waits: for a session to time out, for a worker to start. Two of them use two cores better than one.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.chaos.line import Line, Outcome, Scale, Tally
from tests.chaos.report import outcomes_of, table

ROOT = Path(__file__).parents[2]


async def side_by_side(lines: Sequence[Line], scale: Scale, seed: int, lanes: int) -> list[Outcome]:
    """What came of each, in their order."""
    found: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as name:
        folder = Path(name)
        for alone in (False, True):
            left = [line for line in lines if line.alone is alone]

            async def lane(left: list[Line]) -> None:
                while left:
                    line = left.pop(0)
                    found[line.id] = await _run(line, scale, seed, folder / f"{line.id}.json")
                    print(table([found[line.id]]), file=sys.stderr, flush=True)

            async with asyncio.TaskGroup() as group:
                for _ in range(1 if alone else lanes):
                    group.create_task(lane(left))
    return [found[line.id] for line in lines]


async def _run(line: Line, scale: Scale, seed: int, file: Path) -> Outcome:
    began = asyncio.get_running_loop().time()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--lanes", "1", "--lines", line.id),
        *("--scale", scale, "--seed", str(seed), "--json", str(file)),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    try:
        [outcome] = outcomes_of(file)
    except (OSError, msgspec.DecodeError):
        tally = Tally()
        tally.violations.append(f"its process ended with {process.returncode}: {said.decode()[-3000:]}")
        return tally.outcome(line, asyncio.get_running_loop().time() - began)
    return outcome
