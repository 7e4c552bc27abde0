"""A soak in a process of its own, behind everything else in its turn for the processor."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.line import Outcome
from tests.chaos.report import outcomes_of

ROOT = Path(__file__).parents[2]
_NICE = 10


class SoakBeside:
    """Begins at once. `outcome` waits for its end."""

    def __init__(self, seconds: float = 300.0, *, leak_bytes: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-soak-")
        self._json = Path(self._folder.name) / "soak.json"
        self._said = Path(self._folder.name) / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.chaos", "--json", os.fspath(self._json)),
                    *("--light", "--soak", f"{seconds:g}", "--leak", str(leak_bytes)),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)

    def outcome(self, patience_s: float = 600.0) -> Outcome:
        """What came of it. AssertionError: it ended otherwise."""
        code = self._process.wait(patience_s)
        assert self._json.exists(), f"exit code {code}: {self._said.read_text()[-3000:]}"
        [outcome] = outcomes_of(self._json)
        return outcome

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        self._folder.cleanup()
