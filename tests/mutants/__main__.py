"""`python -m tests.mutants [ID ...]`: switch each safeguard off, and simulate until a promise breaks.

A mutant is a copy of `headrace/` with one patch, simulated under the unchanged tests; a few are given to the tests that the table names. Caught is one whose
seeds fail within `--seeds`; one that survives makes this command fail, and so does one whose text is not found.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


class Verdict(NamedTuple):
    """`seeds`: how many were needed. `by`: the invariant that broke first; "" for a survivor. `what` is its sentence."""

    mutant: Mutant
    seeds: int
    seconds: float
    by: str
    what: str


def tree_of(mutant: Mutant | None, place: Path) -> Path:
    """A tree in which the safeguard is off. LookupError if its text is not there once."""
    shutil.copytree(
        ROOT / "headrace", place / "headrace", ignore=shutil.ignore_patterns("__pycache__", "_examples"), symlinks=True
    )
    if mutant is not None and mutant.test:  # pytest looks through links
        shutil.copytree(ROOT / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", place)
    else:
        (place / "tests").symlink_to(ROOT / "tests", target_is_directory=True)
    if mutant is not None:
        file = place / "headrace" / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            raise LookupError(
                f"{mutant.id}: its text is {text.count(mutant.old)} times in {mutant.file}: {mutant.old!r}"
            )
        file.write_text(text.replace(mutant.old, mutant.new))
    return place


def tried(mutant: Mutant | None, *, seeds: int, first: int = 0, jobs: int = 1) -> Verdict:
    """Simulate a mutant (None: the tree as it is) until it is caught."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headrace-mutant-") as folder:
        place = tree_of(mutant, Path(folder))
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        if mutant is not None and mutant.test:
            return _tested(mutant, place, environment)
        figures = place / "figures.json"
        command = [sys.executable, "-P", "-m", "tests.simulation", "--seeds", str(seeds), "--first", str(first)]
        ended = subprocess.run(
            [*command, "--kept", "--failures", "1", "--jobs", str(jobs), "--json", str(figures)],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        if not figures.exists():  # it cannot even run
            what = (ended.stderr.strip().splitlines() or [""])[-1]
            return Verdict(mutant or MUTANTS[0], 0, seconds, "start", what)
        found = json.loads(figures.read_text())
        broken = re.search(r"^seed \d+:\n +\[[^]]*\] (\S+) (.*)$", ended.stdout, re.MULTILINE)
        by, what = (broken[1], broken[2]) if broken else ("", "")
        return Verdict(mutant or MUTANTS[0], found["seeds"], seconds, by, what)


def _tested(mutant: Mutant, place: Path, environment: dict[str, str]) -> Verdict:
    """Run what the table names. Caught if tests fail, not if they cannot begin."""
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", mutant.test]
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    failed = re.findall(r"^FAILED \S+::(\S+)", ended.stdout, re.MULTILINE)
    by = "test" if ended.returncode == 1 and failed else "start" if ended.returncode > 1 else ""
    return Verdict(mutant, 0, time.monotonic() - began, by, ", ".join(failed) or ended.stdout[-90:])


def line(verdict: Verdict) -> str:
    """One row of the table."""
    by = verdict.by or "SURVIVED"
    return f"{verdict.mutant.id:5} {verdict.mutant.switch:62} {by:9} {verdict.seeds:6} {verdict.seconds:7.1f}  {verdict.what[:90]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("ids", nargs="*", help="some of the table; all by default")
    parser.add_argument("--seeds", type=int, default=2000, help="at most so many for each")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.ids) - {mutant.id for mutant in MUTANTS}):
        parser.error(f"not in the table: {', '.join(unknown)}")
    if options.seeds < 1:
        parser.error("--seeds must be at least 1: nothing is caught by none")
    print(f"{'':5} {'switched off':62} {'caught by':9} {'seeds':>6} {'seconds':>7}", flush=True)
    survivors: list[str] = []
    for mutant in MUTANTS:
        if options.ids and mutant.id not in options.ids:
            continue
        verdict = tried(mutant, seeds=options.seeds, first=options.first, jobs=options.jobs)
        print(line(verdict), flush=True)
        if verdict.by in {"", "start"}:
            survivors.append(mutant.id)
    print(f"{len(set(options.ids)) or len(MUTANTS)} safeguards, not caught: {survivors or 'none'}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
