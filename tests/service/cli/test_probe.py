"""The probe of a pod with several workers, against real metrics ports."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from headrace.observability.exposition import Exposition
from headrace.observability.health import Condition, Health
from headrace.service.cli import probe
from headrace.topics.errors import SettingsError
from tests.kafka_broker.broker import PORTS

WORKERS = 3


class Workers:
    """Three metrics ports in a row, as `serve --workers 3` has them; the probe's argument is the first one's port."""

    def __init__(self, at: ExitStack) -> None:
        self.healths = [Health() for _ in range(WORKERS)]
        self.stacks = [at.enter_context(ExitStack()) for _ in range(WORKERS)]
        for health in self.healths:
            health.start()
            for condition in Condition:
                health.set(condition, ok=True)
        self.port = self._in_a_row()

    def _in_a_row(self) -> int:
        for first in PORTS[::7]:
            try:
                for index, (health, stack) in enumerate(zip(self.healths, self.stacks, strict=True)):
                    stack.enter_context(Exposition(CollectorRegistry(), health, port=first + index))
            except SettingsError:  # one is taken
                for stack in self.stacks:
                    stack.close()
            else:
                return first
        raise AssertionError("no three free ports in a row")

    def says(self, path: str) -> list[str]:
        return probe.asked(path, self.port, WORKERS)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(stack)


def test_a_pod_is_ready_when_all_its_workers_are(workers: Workers) -> None:
    assert workers.says("readyz") == []
    workers.healths[2].set(Condition.REPLAYED, ok=False)
    (said,) = workers.says("readyz")
    assert said.startswith(f"readyz of port {workers.port + 2}: HTTP/1.")
    assert " 503 " in said
    assert workers.says("livez") == []


def test_a_worker_that_is_gone_is_not_ready_and_its_supervisors_to_start_again(workers: Workers) -> None:
    workers.stacks[0].close()
    assert workers.says("readyz") == [f"readyz of port {workers.port}: nobody listens"]
    assert workers.says("livez") == []


def test_when_all_are_gone_nobody_lives(workers: Workers) -> None:
    for stack in workers.stacks:
        stack.close()
    assert workers.says("livez") == [f"livez of port {workers.port + each}: nobody listens" for each in range(WORKERS)]


def test_one_loop_that_stands_still_is_enough(workers: Workers) -> None:
    workers.healths[1].watch(lambda: 3_600.0)
    (said,) = workers.says("livez")
    assert said.startswith(f"livez of port {workers.port + 1}: HTTP/1.")


def test_a_port_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        said = probe.trouble("livez", mute.getsockname()[1], within_s=0.05)
    assert said.startswith("no answer")


@pytest.mark.parametrize(
    "arguments", [[], ["readyz"], ["metrics", "1", "1"], ["readyz", "x", "1"], ["livez", "1", "0"]]
)
def test_arguments_that_are_none_are_a_usage_error(arguments: list[str]) -> None:
    assert probe.main(arguments) == 2


def test_it_is_run_as_a_module(workers: Workers) -> None:
    def ask(count: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", probe.__name__, "readyz", str(workers.port), str(count)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ask(WORKERS).returncode, ask(WORKERS).stderr) == (0, "")
    workers.healths[0].drain("SIGTERM")
    asked = ask(WORKERS)
    assert asked.returncode == 1
    assert asked.stderr.startswith(f"readyz of port {workers.port}: ")
