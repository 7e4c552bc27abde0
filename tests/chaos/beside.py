"""Chaos that goes on beside the tests: it mostly waits, for a session to time out or for a worker to start."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.line import Line, Outcome
from tests.chaos.report import outcomes_of
from tests.kafka_broker.broker import PORTS_VARIABLE

ROOT = Path(__file__).parents[2]
_SOAK_NICE = 10


class Beside:
    """`python -m tests.chaos ARGUMENTS` in a process of its own, which begins at once, on ports that nobody else takes.

    `nice`: how far behind the others in its turn for the processor.
    """

    def __init__(self, *arguments: str, ports: str, nice: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-chaos-")
        self._json = Path(self._folder.name) / "outcomes.json"
        self._said = Path(self._folder.name) / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos", "--json", os.fspath(self._json), *arguments],
                cwd=ROOT,
                env={**os.environ, PORTS_VARIABLE: ports},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        if nice:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)

    def outcomes(self, patience_s: float) -> dict[str, Outcome]:
        """By line, when all have ended. AssertionError: it ended otherwise."""
        code = self._process.wait(patience_s)
        assert self._json.exists(), f"exit code {code}: {self._said.read_text()[-3000:]}"
        return {outcome.line: outcome for outcome in outcomes_of(self._json)}

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        self._folder.cleanup()


def soak_beside(seconds: float = 300.0, *, leak_bytes: int = 0) -> Beside:
    """A soak, behind everything else in its turn for the processor."""
    return Beside("--light", "--soak", f"{seconds:g}", "--leak", str(leak_bytes), ports="29000-32000", nice=_SOAK_NICE)


def lines_beside(lines: Sequence[Line]) -> Beside:
    """Lines one after the other, with brokers of their own."""
    return Beside("--lines", ",".join(line.id for line in lines), ports="26000-29000")
