"""`promtool` and `prometheus` of the Debian package `prometheus`, and the files under deploy/."""

import subprocess
from pathlib import Path
from shutil import which
from typing import Final

from tests.project.repository import ROOT
from tests.requirement import missing

DEPLOY: Final = ROOT / "deploy"
RULES: Final = sorted((DEPLOY / "prometheus").glob("headrace.*.yaml"))


def tool(name: str) -> str:
    """Where it is; skips (fails with CI=true) where it is not."""
    found = which(name)
    if found is None:
        missing(f"{name} is not installed: apt install prometheus")
    return found


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """What it says, once it is content."""
    command = [tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()
