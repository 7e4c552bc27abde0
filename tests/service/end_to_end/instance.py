"""`Instance`: one `headrace` process, its lines, its metrics port, its memory, and the ways it can end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.service.end_to_end.waiting import PATIENCE_S, eventually_now

_METRICS = re.compile(r"^ {2}metrics {2}(http\S+)$", re.MULTILINE)
_BEGIN = '{"timestamp":'
_CONSOLE = re.compile(r"^  console  (\S+)$", re.MULTILINE)


class Instance:
    """Starts at once. Its standard error goes to a file, so that it never waits for a reader."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        number: int,
        environment: Mapping[str, str] | None = None,
        module: str = "headrace",
    ) -> None:
        self.stderr_file = folder / f"stderr.{number}"
        self.stdout_file = folder / f"stdout.{number}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
        with self.stderr_file.open("wb") as stderr, self.stdout_file.open("wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                env={**inherited, "HEADRACE_API__ENABLED": "false", **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return self.stdout_file.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event name."""
        return [line for line in self.all_lines() if line["event"] == event]

    def all_lines(self) -> list[dict[str, Any]]:
        """All log lines so far; one that is being written is none yet.

        Workers write to one file, and a kill can cut a line where the file's pages meet: the next one begins behind that piece.
        """
        whole, _, _ = self.stderr.rpartition("\n")
        lines = [line for line in whole.split("\n") if _BEGIN in line and line.endswith("}")]
        return [json.loads(line[line.rindex(_BEGIN) :]) for line in lines]

    # --- while it runs ---

    async def started(self) -> "Instance":
        """Wait until it says where its metrics are, which it does when its topics are checked."""
        await eventually_now(lambda: self._alive() and _METRICS.search(self.stderr), lambda: self._story("started"))
        return self

    async def ready(self) -> "Instance":
        """Wait until it has read the whole run log and works."""
        await self.started()
        await eventually_now(lambda: self._alive() and self.probe("readyz") == 200, lambda: self._story("ready"))
        return self

    @property
    def url(self) -> str:
        found = _METRICS.search(self.stderr)
        assert found is not None, self.stderr
        return found[1].removesuffix("/metrics").rstrip("/")

    @property
    def api_url(self) -> str:
        """Where it says that its API is."""
        found = _CONSOLE.search(self.stderr)
        assert found is not None, self.stderr
        return found[1]

    def probe(self, path: str) -> int:
        """The HTTP status of a health path; 0 if nobody answers."""
        return status_of(f"{self.url}/{path}")

    def scrape(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    @property
    def memory_peak_kib(self) -> int:
        """VmHWM: the most resident memory so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1])  # pyright: ignore[reportOptionalSubscript]

    def _alive(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self._story("still running"))
        return True

    def _story(self, wanted: str) -> str:
        return f"{wanted}; exit code {self.process.poll()}; standard error ends with:\n{self.stderr[-4000:]}"

    # --- ends ---

    def kill(self) -> None:
        """kill -9; returns once it is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """SIGTERM, the first request to stop in good order."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self, *, patience_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._story(f"ended within {patience_s:g} s")) from None

    def stop(self) -> int:
        """SIGTERM and its exit code."""
        self.terminate()
        return self.ended()


def status_of(url: str) -> int:
    """The HTTP status of a GET; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def run(
    arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """A command that ends by itself: exit code, standard output, standard error."""
    instance = Instance(arguments, folder=folder, number=time.monotonic_ns(), environment=environment)
    try:
        code = instance.ended()
    except AssertionError:
        instance.kill()
        raise
    return code, instance.stdout, instance.stderr
