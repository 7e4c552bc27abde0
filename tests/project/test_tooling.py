"""The two commands of the README, and the scripts under them."""

import os
import stat
import subprocess
from pathlib import Path

from tests.project.repository import ROOT


def test_ci_runs_make_test_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "exec make test"
    assert "set -euo pipefail" in lines


def test_make_knows_the_promised_targets() -> None:
    for target in ("run", "demo", "test", "fmt", "lint", "types", "docs", "bench", "kafka", "image", "clean"):
        asked = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stderr


def test_a_python_that_only_pretends_is_passed_over(tmp_path: Path) -> None:
    """A shim of a version manager is on PATH and fails when it is run."""
    pretender = executable(tmp_path / "python3", "exit 127")
    real = executable(tmp_path / "python3.12", "exit 0")
    assert find_python(tmp_path) == (0, str(real))
    real.unlink()
    pretender.unlink()
    code, _ = find_python(tmp_path)
    assert code == 1


def find_python(folder: Path) -> tuple[int, str]:
    environment = {**os.environ, "PATH": str(folder), "PYTHON": ""}
    script = ROOT / "scripts" / "find-python"
    done = subprocess.run(["/bin/bash", script], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def executable(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
