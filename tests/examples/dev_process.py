"""Headrace as a user has it: `headrace dev` in a folder of its own, and client commands beside it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

BOUND_S = 90  # against hanging, not a measurement

ROOT = Path(__file__).parents[2]


class DevProcess:
    """`headrace dev APP` on the embedded log `log_path`. Leaving the `with` kills it."""

    def __init__(self, app: Path, *options: str, folder: Path, log_path: Path | None = None, api_port: int = 0) -> None:
        self.app = app
        self.folder = folder
        self._options = options
        self._api_port = api_port
        self._log_path = log_path or folder / "log.sqlite"
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Return when it has made its topics."""
        self._starts += 1
        arguments = ["dev", str(self.app), "--metrics-port", "0", "--api-port", str(self._api_port)]
        arguments += ["--log-path", str(self._log_path)]
        arguments += ["--set", "telemetry.log_level=info", *self._options]  # what breakers do, for `logged`
        with self._said("out").open("wb") as out, self._said("err").open("wb") as err:
            command = [sys.executable, "-m", "headrace", *arguments]
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=out, stderr=err)
        self._wait_for("  metrics ")

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(BOUND_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        return self._process.wait(BOUND_S)

    def wait_for_a_finished_run(self) -> None:
        """Since its latest start."""
        self._wait_for("succeeded", "out")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Log lines of the latest start with this event name; one that is being written is none yet."""
        whole, _, _ = self._errors().rpartition("\n")
        lines = [line for line in whole.splitlines() if line.startswith("{")]
        return [said for said in map(json.loads, lines) if said["event"] == event]

    def cli(self, *arguments: str, stdin: str = "") -> str:
        """A client command on the same log; its stdout. Fails the test if the command does."""
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *arguments, "--log-path", str(self._log_path)],
            cwd=self.folder,
            env=environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self._errors()}"
        return done.stdout

    def publish(self, topic: str, type_: str, data: Sequence[dict[str, Any]], *, key: str) -> None:
        """CloudEvents, keyed by this field of their data."""
        lines = "\n".join(json.dumps(each) for each in data)
        self.cli("event", "publish", topic, "--type", type_, "--key-from", key, "--data", "-", stdin=lines)

    def tail(self, topic: str, count: int) -> list[dict[str, Any]]:
        """The first `count` events of a topic, as soon as they are there."""
        return self._events(topic, "--limit", str(count))

    def tail_distinct(self, topic: str, count: int) -> list[dict[str, Any]]:
        """As `tail`, each CloudEvents id once: after a crash an event may lie there twice."""
        wanted = count
        while True:
            events = {event["id"]: event for event in self.tail(topic, wanted)}
            if len(events) >= count:
                return list(events.values())
            wanted += count - len(events)

    def everything(self, topic: str) -> list[dict[str, Any]]:
        """What lies on a topic now."""
        return self._events(topic, "--no-follow")

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.cli("run", "list", "--limit", "0", "-o", "jsonl").splitlines()]

    def _events(self, topic: str, *options: str) -> list[dict[str, Any]]:
        said = self.cli("event", "tail", topic, "--from", "start", "-o", "jsonl", *options)
        return [json.loads(line) for line in said.splitlines()]

    def _wait_for(self, words: str, stream: str = "err") -> None:
        until = time.monotonic() + BOUND_S
        assert self._process is not None
        while words not in self._said(stream).read_text():
            assert self._process.poll() is None, f"it ended:\n{self._errors()}"
            assert time.monotonic() < until, f"it does not say {words!r}:\n{self._errors()}"
            time.sleep(0.02)  # a look at another process is a poll

    def _errors(self) -> str:
        return self._said("err").read_text()

    def _said(self, stream: str) -> Path:
        return self._log_path.with_name(f"start-{self._starts}.{stream}")


def environment() -> dict[str, str]:
    """Ours, without settings that somebody's shell has."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
