"""`headrace dev`, `serve` and `demo` as processes, with the other commands beside them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.service import run_command
from headrace.service.cli.exit_code import ExitCode
from tests.kafka_broker.broker import KafkaBroker
from tests.service.cli.conftest import Headrace

OWN_LOG = ("headrace.runs", "--from", "start", "--no-follow", "-o", "jsonl")
PATIENCE_S = 60.0  # for states that come within a second on an idle machine


class Service:
    """A `headrace` process with its output in files."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self._out, self._err = folder / f"out-{time.monotonic_ns()}", folder / f"err-{time.monotonic_ns()}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace", *map(str, arguments)], stdout=out, stderr=err, cwd=folder
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def until(self, state: Callable[[], bool]) -> None:
        """Wait for a state of the world; fail if the process ends before, or patience does."""
        give_up = time.monotonic() + PATIENCE_S
        while not state():
            assert self.process.poll() is None, self.err
            assert time.monotonic() < give_up, self.err
            time.sleep(0.05)

    def until_started(self) -> None:
        self.until(lambda: "metrics  http" in self.err)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


Starting = Callable[..., Service]


@pytest.fixture
def starting(here: Path) -> Iterator[Starting]:
    """Starts processes, and ends those that a test leaves behind."""
    services: list[Service] = []

    def start(*arguments: str | Path) -> Service:
        services.append(Service(here, *arguments))
        return services[-1]

    yield start
    for service in services:
        if service.process.poll() is None:
            service.process.kill()
        service.process.wait()


@pytest.fixture
def app(headrace: Headrace) -> str:
    """The app that `init` writes."""
    assert headrace("init", "greeter").code == 0
    return "greeter"


def ended(headrace: Headrace, *options: str) -> list[str]:
    return headrace("run", "list", "--status", "succeeded", "-o", "name", *options).lines


def test_a_run_from_event_to_result_with_every_command_beside_it(
    headrace: Headrace, starting: Starting, app: str
) -> None:
    service = starting("dev", app, "--metrics-port", "0")
    service.until_started()
    published = headrace("event", "publish", "greetings", "--data", '{"name":"Ada"}', "--key", "Ada", "-o", "json")
    assert published.code == 0
    service.until(lambda: bool(headrace("run", "list", "-o", "name").lines))
    (run,) = headrace("run", "list", "-o", "name").lines
    watched = headrace("run", "watch", run, "--timeout", "60s")
    assert watched.code == 0, watched.err
    detail = headrace("run", "get", run, "-o", "json").json
    assert (detail["status"], detail["result"], detail["key"]) == ("succeeded", "Hello, Ada!", "Ada")
    kinds = [row["kind"] for row in headrace("run", "history", run, "-o", "json").json]
    assert kinds[0] == "start"
    assert "attempt.succeeded" in kinds
    assert "timer.fired" in kinds
    service.until(lambda: headrace("event", "tail", "greetings.sent", "--from", "start", "--no-follow").out != "")
    service.until(
        lambda: all(
            row["lag"] == 0 for row in headrace("topic", "lag", app, "-o", "json").json if row["topic"] == "greetings"
        )
    )
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "Ada" in service.out
    assert "Traceback" not in service.err


@pytest.mark.parametrize(("given", "said"), [([], False), (["--set", "telemetry.log_level=info"], True)])
def test_the_log_of_dev_is_quiet_unless_a_level_is_set(
    starting: Starting, app: str, given: list[str], said: bool
) -> None:
    service = starting("dev", app, "--metrics-port", "0", *given)
    service.until_started()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert ("service.stopped" in service.err) is said


def test_a_running_run_is_cancelled(headrace: Headrace, starting: Starting, here: Path) -> None:
    (here / "sleeper.py").write_text(
        "from headrace import EventTrigger, Run, workflow\n"
        "@workflow(on=EventTrigger('naps'))\n"
        "async def nap(run: Run, data: int) -> None:\n"
        "    await run.sleep('1h')\n"
    )
    service = starting("dev", "sleeper.py", "--metrics-port", "0")
    service.until_started()
    headrace("event", "publish", "naps", "--data", "1")
    service.until(lambda: bool(headrace("run", "list", "-o", "name").lines))
    (run,) = headrace("run", "list", "-o", "name").lines
    answer = headrace("run", "cancel", run, "--reason", "enough", "-o", "json")
    assert (answer.code, answer.json["status"]) == (0, "cancelled"), answer.err
    assert headrace("run", "cancel", run).code == ExitCode.CONFLICT
    assert headrace("run", "watch", run).code == ExitCode.NOT_SUCCEEDED
    service.signal(signal.SIGINT)
    assert service.wait() == 0


def test_a_resumed_run_that_is_parked_again_says_why(
    headrace: Headrace, starting: Starting, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "LOOK_ON_S", PATIENCE_S)  # as long as it takes on a busy machine
    code = (
        "import asyncio\n"
        "from headrace import EventTrigger, Run, handler, workflow\n"
        "@handler\nasync def left() -> int: return 1\n"
        "@handler\nasync def right() -> int: return 1\n"
        "@handler(timeout='1h')\nasync def long() -> None: await asyncio.Event().wait()\n"
        "@workflow(on=EventTrigger('turns'))\n"
        "async def turn(run: Run, data: int) -> None:\n"
        "    await run.call(SIDE)\n    await run.call(long)\n"
    )
    (here / "turner.py").write_text(code.replace("SIDE", "left"))
    service = starting("dev", "turner.py", "--metrics-port", "0", "--set", "worker.handoff_grace=50ms")
    service.until_started()
    headrace("event", "publish", "turns", "--data", "1")
    service.until(lambda: '"attempt.succeeded"' in headrace("event", "tail", *OWN_LOG).out)
    (run,) = headrace("run", "list", "-o", "name").lines
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    (here / "turner.py").write_text(code.replace("SIDE", "right"))
    service = starting("dev", "turner.py", "--metrics-port", "0")
    service.until(lambda: headrace("run", "list", "--status", "parked", "-o", "name").lines == [run])
    again = headrace("run", "resume", run)
    assert again.code == ExitCode.CONFLICT
    assert again.err.startswith("HR4104")
    assert "left" in again.err
    assert "right" in again.err


def test_the_second_start_on_a_file_names_the_first(headrace: Headrace, starting: Starting, app: str) -> None:
    first = starting("dev", app, "--metrics-port", "0")
    first.until_started()
    second = starting("dev", app, "--metrics-port", "0")
    assert second.wait() == ExitCode.CONFLICT
    assert str(first.process.pid) in second.err
    reset = headrace("dev", app, "--reset")
    assert reset.code == ExitCode.CONFLICT
    port = first.err.split("metrics  http://127.0.0.1:")[1].split()[0]
    same_port = headrace("dev", app, "--metrics-port", port)
    assert same_port.code == ExitCode.CONFLICT, "the very same command twice: it is not the port that matters"
    assert str(first.process.pid) in same_port.err
    assert first.process.poll() is None


def test_reset_forgets_everything(headrace: Headrace, starting: Starting, app: str, here: Path) -> None:
    assert headrace("topic", "create", app).code == 0
    headrace("event", "publish", "greetings", "--data", '{"name":"Ada"}')
    service = starting("dev", app, "--metrics-port", "0", "--reset")
    service.until_started()
    assert headrace("event", "tail", "greetings", "--from", "start", "--no-follow").out == ""


def test_the_second_signal_leaves_at_once(starting: Starting, here: Path) -> None:
    (here / "stubborn.py").write_text(
        "import asyncio\n"
        "from headrace import EventTrigger, Run, handler, workflow\n"
        "@handler(timeout='1h')\n"
        "async def hang() -> None:\n"
        "    print('hanging', flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "@workflow(on=EventTrigger('hangs'))\n"
        "async def stubborn(run: Run, data: int) -> None:\n"
        "    await run.call(hang)\n"
        "async def feed(seed: int):\n"
        "    yield {'topic': 'hangs', 'type': 'hangs', 'data': 1, 'key': None}\n"
        "    await asyncio.sleep(3600)\n"
    )
    service = starting("dev", "stubborn.py", "--metrics-port", "0", "--feed")
    service.until(lambda: "hanging" in service.out)
    service.signal(signal.SIGINT)
    service.until(lambda: "Stopping in good order" in service.err)
    service.signal(signal.SIGINT)
    assert service.wait() == ExitCode.INTERRUPTED


def test_a_signal_is_heard_though_nobody_reads_what_is_said(here: Path, app: str) -> None:
    arguments = [sys.executable, "-m", "headrace", "dev", app, "--metrics-port", "0"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=here) as process:
        try:
            assert process.stderr is not None
            while line := process.stderr.readline():
                if line.startswith(b"  made"):  # its last word for now
                    break
            assert line
            process.stderr.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_a_taken_port_is_refused(headrace: Headrace, app: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = headrace("dev", app, "--metrics-port", str(taken.getsockname()[1]))
    assert answer.code == ExitCode.INVALID
    assert answer.err.startswith("HR1301")


def test_missing_topics_are_refused_if_none_may_be_made(headrace: Headrace, app: str) -> None:
    answer = headrace("dev", app, "--metrics-port", "0", "--no-create-topics")
    assert answer.code == ExitCode.INVALID
    assert answer.err.startswith("HR1201")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["serve", "greeter", "--workers", "0", "--bootstrap-servers", "127.0.0.1:1"], 7, "worker.processes"),
        (["serve", "greeter", "--workers", "2", "--set", "log.backend=embedded"], 7, "needs Kafka"),
        (
            ["serve", "greeter", "--workers", "3", "--metrics-port", "65534", "--bootstrap-servers", "127.0.0.1:1"],
            7,
            "need ports up to 65536",
        ),
        (
            [
                *("serve", "greeter", "--workers", "2", "--bootstrap-servers", "127.0.0.1:1"),
                *("--set", "telemetry.discovery_file=nowhere/workers.json"),
            ],
            7,
            "there is no folder nowhere",
        ),
        (["serve", "greeter"], 7, "HR1004"),
        (["dev", "greeter", "--feed"], 7, "HR2007"),
        (["dev", "nowhere"], 7, "HR2001"),
        (["demo", "--limit", "0"], 2, "--limit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_start_that_cannot_be_is_one_clear_message(
    headrace: Headrace, app: str, arguments: list[str], code: int, says: str
) -> None:
    answer = headrace(*arguments)
    assert answer.code == code
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_the_demo_ends_by_itself_with_a_table(starting: Starting, here: Path) -> None:
    demo = starting("demo", "--limit", "4")
    assert demo.wait() == 0, demo.err
    runs = [line.split() for line in demo.out.splitlines() if line.startswith("runs ")]
    assert sum(int(words[-1]) for words in runs) >= 3  # an order may come twice, and is one run then
    assert "breaker openings" in demo.out
    assert "event to result, p99" in demo.out
    assert not (here / ".headrace").exists()


def test_serve_on_kafka(headrace: Headrace, starting: Starting, app: str, kafka: KafkaBroker) -> None:
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--app-name", f"cli-{os.getpid()}")
    few = ("--set", "log.partitions=2")
    refused = headrace("serve", app, *servers, *few, "--metrics-port", "0")
    assert refused.code == ExitCode.INVALID
    assert refused.err.startswith("HR1201")
    service = starting("serve", app, *servers, *few, "--metrics-port", "0", "--create-topics")
    service.until_started()
    assert headrace("topic", "check", app, *servers, *few).code == 0
    assert headrace("event", "publish", "greetings", "--data", '{"name":"Bo"}', *servers).code == 0
    service.until(lambda: len(ended(headrace, *servers)) == 1)
    (run,) = ended(headrace, *servers)
    assert headrace("run", "get", run, *servers, "-o", "json").json["result"] == "Hello, Bo!"
    results = headrace("event", "tail", "greetings.sent", "--from", "start", "--limit", "1", "-o", "jsonl", *servers)
    assert "Hello, Bo!" in results.out
    wrong = headrace("serve", app, *servers, "--set", "log.partitions=3", "--metrics-port", "0")
    assert wrong.code == ExitCode.INVALID
    assert wrong.err.startswith("HR1203")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "Traceback" not in service.err


def test_serve_waits_for_a_broker_that_is_away_and_says_so(starting: Starting, app: str) -> None:
    service = starting("serve", app, "--bootstrap-servers", "127.0.0.1:1", "--metrics-port", "0")
    service.until(lambda: "No Kafka broker answers" in service.err)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "Traceback" not in service.err


def test_a_command_that_follows_ends_with_130_on_ctrl_c(headrace: Headrace, starting: Starting, app: str) -> None:
    assert headrace("topic", "create", app).code == 0
    assert headrace("event", "publish", "greetings", "--data", "1").code == 0
    follower = starting("event", "tail", "greetings", "--from", "start")
    follower.until(lambda: "kafka:greetings" in follower.out or "greetings" in follower.out)
    follower.signal(signal.SIGINT)
    assert follower.wait() == ExitCode.INTERRUPTED
    assert follower.err == ""
