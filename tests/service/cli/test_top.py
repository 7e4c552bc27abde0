"""`headrace top` against real metrics ports."""

from __future__ import annotations

import fcntl
import io
import math
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from headrace.observability import told_run
from headrace.observability.exposition import Exposition
from headrace.observability.forecast_trend import Trend
from headrace.observability.health import Condition, Health
from headrace.observability.label import BreakerState, Ending, TriggerKind
from headrace.observability.prometheus import PrometheusObserver, registry
from headrace.observability.snapshot import BreakerNow, LagNow, RunState, Snapshot, WorkflowNow
from headrace.service import discovery
from headrace.service.cli.top import drawn, shares
from headrace.service.cli.top_view import BreakerView, LagView, View, WorkerView, WorkflowView, view
from headrace.service.cli.worker_metrics import Scrape, scraped
from headrace.topics.outcome import RunStatus
from tests.observability.test_prometheus import FORECAST
from tests.service.cli.conftest import Headrace, headrace, here

__all__ = ["headrace", "here"]  # fixtures

ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOW = Snapshot(
    workflows=(WorkflowNow(workflow="fulfil", runs={RunState.RUNNING: 7, RunState.WAITING: 2}),),
    lag=(
        LagNow(topic="orders", partition=0, group="shop.router", records=2, seconds=0.1),
        LagNow(topic="orders", partition=1, group="shop.router", records=40, seconds=3.0),
    ),
    partitions_assigned={"shop.owners": 3},
    breakers=(BreakerNow(breaker="bank", state=BreakerState.OPEN),),
    approvals_pending={"fulfil": 2},
    dead_letters={"orders.dlq": 1},
)


class Worker:
    """A metrics port with a workload that the test makes."""

    def __init__(self, stack: ExitStack, addresses: dict[int, str]) -> None:
        self.observer = PrometheusObserver(snapshots=lambda: NOW)
        self.observer.show(lambda: FORECAST)
        health = Health()
        for condition in Condition:
            health.set(condition, ok=True)
        health.start()
        self.port = Exposition(
            registry(self.observer), health, port=0, discovery=lambda: discovery.document("shop", addresses)
        )
        stack.enter_context(self.port)

    def work(self, runs: int) -> None:
        for _ in range(runs):
            self.observer.run_started(
                told_run.RunStarted(
                    run="1.a", workflow="fulfil", version="1", trigger=TriggerKind.EVENT, started_at_ms=0
                )
            )
            self.observer.attempt_ended(
                told_run.AttemptEnded(
                    run="1.a",
                    workflow="fulfil",
                    step="/1/charge",
                    handler="charge",
                    number=1,
                    ending=Ending.SUCCEEDED,
                    started_at_ms=0,
                    duration_ms=20.0,
                )
            )
            self.observer.run_finished(
                told_run.RunFinished(
                    run="1.a", workflow="fulfil", status=RunStatus.FAILED, started_at_ms=0, duration_ms=30.0
                )
            )


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    addresses: dict[int, str] = {}
    with ExitStack() as stack:
        made = [Worker(stack, addresses), Worker(stack, addresses)]
        addresses.update({index: worker.port.url for index, worker in enumerate(made)})
        yield made


def port_of(worker: Worker) -> str:
    return str(worker.port.port)


def test_one_address_finds_all_workers_of_the_machine(headrace: Headrace, workers: list[Worker]) -> None:
    answer = headrace("top", "--once", "--interval", "200ms", "--metrics-port", port_of(workers[0]), "-o", "json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json
    assert [each["worker"] for each in found["workers"]] == ["0", "1"]
    assert {each["status"] for each in found["workers"]} == {"ready"}
    (flow,) = found["workflows"]
    assert flow["active"] == {"running": 14, "waiting": 4}
    assert (flow["arrivals_per_s"], flow["capacity_per_s"], flow["drain_s"], flow["breach_s"]) == (24, 20, None, 90)
    assert found["lag"] == [{"topic": "orders", "records": 84, "seconds": 3.0, "worst_partition": 1}]
    assert found["breakers"] == [{"breaker": "bank", "state": "open"}]
    assert (found["bottleneck"], found["relief"], found["workers_needed"]) == ("pool:mail", 4.0, 4)
    assert (found["approvals_pending"], found["dead_letters_open"], found["history_lag_s"]) == (4, 2, None)


def test_a_table_without_a_terminal_is_whole_and_ends(headrace: Headrace, workers: list[Worker]) -> None:
    workers[0].work(1)
    answer = headrace("top", "--interval", "200ms", "--metrics-url", workers[0].port.url)
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "pool:mail limits; without it 4.0 times as much would pass" in answer.out
    assert "2 pending approvals" in answer.out
    assert "1 open dead letters" in answer.out
    for text in ("fulfil", "7 running, 2 waiting", "never", "charge", "orders", "bank", "open"):
        assert text in answer.out


def test_a_worker_that_is_gone_is_said_so_and_the_others_are_shown(headrace: Headrace, workers: list[Worker]) -> None:
    answer = headrace(
        *("top", "--once", "--interval", "200ms", "-o", "json"),
        *("--metrics-url", workers[0].port.url, "--metrics-url", "127.0.0.1:1"),
    )
    assert answer.code == 0
    up, gone = answer.json["workers"]
    assert up["status"] == "ready"
    assert gone["status"].startswith("no answer")


def test_doctor_tells_how_the_workers_are_and_what_will_happen(headrace: Headrace, workers: list[Worker]) -> None:
    answer = headrace("doctor", "--app-name", "shop", "--metrics-port", port_of(workers[0]), "-o", "json")
    checks = {each["check"]: each for each in answer.json}
    assert answer.code == 0
    assert checks["workers"]["found"] == "2 workers on this machine, ready"
    assert checks["partitions"]["state"] == "warn"
    assert checks["partitions"]["found"] == "6 run-log partitions here for 2 workers"
    assert checks["forecast"]["state"] == "warn"
    assert checks["breaker"]["found"].startswith("bank is open")
    assert "fulfil" in checks["forecast"]["found"]
    assert (
        "pool:mail limits: without it 4.0 times as much would pass. The load needs 4 workers."
        in checks["forecast"]["fix"]
    )


@pytest.mark.parametrize(
    ("arrivals", "capacity", "state", "found"),
    [
        (12.0, 10.0, "warn", "pool:mail limits: fulfil cannot keep up"),
        (0.0, 0.0, "warn", "pool:mail limits: fulfil cannot keep up"),  # seven runs are open, and nothing moves
        (10.0, 10.4, "ok", "pool:mail limits, and keeps up"),
        (10.0, None, "ok", "pool:mail limits, and keeps up"),  # nobody knows
    ],
)
def test_doctor_says_keeps_up_only_of_what_does(
    headrace: Headrace, workers: list[Worker], arrivals: float, capacity: float | None, state: str, found: str
) -> None:
    flow = replace(
        FORECAST.workflows[0],
        arrivals=Trend(per_s=arrivals, slope=0.0, holds_s=0.0),
        capacity_per_s=capacity,
        breach_s=math.inf,
    )
    for worker in workers:
        worker.observer.show(lambda: replace(FORECAST, workflows=(flow,)))
    answer = headrace("doctor", "--app-name", "shop", "--metrics-port", port_of(workers[0]), "-o", "json")
    (check,) = [each for each in answer.json if each["check"] == "forecast"]
    assert (check["state"], check["found"]) == (state, found)


def test_doctor_tells_of_a_port_that_is_somebody_elses(headrace: Headrace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_hang_up, args=(other,), daemon=True).start()
        answer = headrace("doctor", "--metrics-port", str(other.getsockname()[1]), "-o", "json")
    (check,) = [each for each in answer.json if each["check"] == "metrics port"]
    assert check["state"] == "warn"
    assert "no worker answers there" in check["found"]


def test_doctor_tells_of_a_port_where_another_app_works(headrace: Headrace, workers: list[Worker]) -> None:
    answer = headrace("doctor", "--app-name", "bakery", "--metrics-port", port_of(workers[0]), "-o", "json")
    (check,) = [each for each in answer.json if each["check"] in {"metrics port", "workers"}]
    assert (check["state"], check["found"]) == ("warn", f"127.0.0.1:{port_of(workers[0])} belongs to the app shop")
    assert "bakery" in check["fix"]


def test_doctor_tells_of_an_address_that_no_start_can_bind(headrace: Headrace) -> None:
    answer = headrace("doctor", "--set", "telemetry.metrics_host=203.0.113.1", "-o", "json")
    (check,) = [each for each in answer.json if each["check"] == "metrics port"]
    assert (check["state"], answer.code) == ("fail", 1)
    assert "telemetry.metrics_host" in check["fix"]


def test_doctor_looks_whether_spans_would_arrive(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector:
        address = f"http://127.0.0.1:{collector.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        there = headrace("doctor", "--metrics-port", "0", "-o", "json")
    gone = headrace("doctor", "--metrics-port", "0", "-o", "json")
    assert [each["state"] for each in there.json if each["check"] == "traces"] == ["ok"]
    assert [each["state"] for each in gone.json if each["check"] == "traces"] == ["warn"]


@pytest.mark.parametrize(
    ("variables", "state", "found"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "ok", "turned off by OTEL_SDK_DISABLED"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "ok", "turned off by OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "warn", "OTEL_TRACES_EXPORTER=jaeger sends no spans"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "fail", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "10"}, "fail", "OpenTelemetry refuses"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:99999"}, "fail", "is no address"),
    ],
)
def test_doctor_says_of_traces_what_a_start_would(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], state: str, found: str
) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **variables}.items():
        monkeypatch.setenv(name, value)
    answer = headrace("doctor", "--metrics-port", "0", "-o", "json")
    (check,) = [each for each in answer.json if each["check"] == "traces"]
    assert check["state"] == state
    assert found in check["found"]
    assert bool(check["fix"]) == (state != "ok")


def _hang_up(server: socket.socket) -> None:
    """Accept and close whatever comes, until the server is closed."""
    server.settimeout(0.05)
    while True:
        try:
            server.accept()[0].close()
        except TimeoutError:
            continue
        except OSError:
            return


def test_nothing_there_is_unreachable(headrace: Headrace) -> None:
    answer = headrace("top", "--once", "--metrics-port", "1")
    assert answer.code == 6
    assert "--metrics-url" in answer.err
    named = headrace("top", "--once", "--interval", "200ms", "--metrics-url", "127.0.0.1:1", "-o", "json")
    assert named.code == 6
    assert "no answer" in named.json["workers"][0]["status"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--interval", "1ms"],
        ["-o", "name"],
        ["--metrics-url", "ftp://x"],
        ["--metrics-url", "http://[::1"],
        ["--metrics-url", "127.0.0.1:99999"],
        ["--interval", "soon"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(headrace: Headrace, wrong: list[str]) -> None:
    assert headrace("top", "--once", *wrong).code == 2


def test_rates_are_between_two_looks_and_a_restart_counts_from_nothing(workers: list[Worker]) -> None:
    places = {str(index): f"127.0.0.1:{worker.port.port}" for index, worker in enumerate(workers)}
    workers[0].work(3)
    before = scraped(places)
    workers[0].work(10)
    workers[1].work(5)
    after = scraped(places)
    elapsed_s = after[0].at_s - before[0].at_s

    def at(scrape: Scrape, at_s: float) -> Scrape:
        return Scrape(worker=scrape.worker, url=scrape.url, at_s=at_s, samples=scrape.samples, status="ready")

    assert elapsed_s > 0
    found = view([at(each, 0) for each in before], [at(each, 5) for each in after])
    (flow,) = found.workflows
    assert (flow.started_per_s, flow.finished_per_s, flow.failed_per_s) == (3, 3, 3)
    (task,) = found.tasks
    assert task.attempts_per_s == 3
    assert task.mean_ms == pytest.approx(20)
    again = view([at(each, 0) for each in after], [at(each, 5) for each in before])  # counters fell: restarted
    assert again.workflows[0].started_per_s == pytest.approx(3 / 5)


@pytest.mark.parametrize(("seconds", "told"), [((), ""), ((0.2, 3.0), ""), ((0.2, 42.0), "the history is 42 s behind")])
def test_a_history_that_is_far_behind_is_told(seconds: tuple[float, ...], told: str) -> None:
    rows: list[tuple[dict[str, str], float]] = [({"partition": str(at)}, each) for at, each in enumerate(seconds)]
    worker = Scrape(worker="0", url="a", at_s=1.0, samples={"headrace_history_lag_seconds": rows}, status="ready")
    now = view([worker], [worker])
    assert now.history_lag_s == max(seconds, default=None)
    screen = io.StringIO()
    Console(file=screen, width=160).print(drawn(now))
    assert ("the history" in screen.getvalue()) == bool(told)
    assert told in screen.getvalue()


def test_however_much_there_is_the_screen_shows_of_everything_what_matters_most() -> None:
    def flow(number: int) -> WorkflowView:
        rate = 5.0 if number == 150 else 0.0
        known = {"arrivals_per_s": None, "capacity_per_s": None, "drain_s": None, "breach_s": None}
        return WorkflowView(
            workflow=f"flow-{number}", started_per_s=rate, finished_per_s=rate, failed_per_s=0, active={}, **known
        )

    now = View(
        workers=[WorkerView(worker=str(n), url="a", status="unready" if n == 9 else "ready") for n in range(10)],
        workflows=[flow(number) for number in range(200)],
        tasks=[],
        lag=[LagView(topic=f"t{n}", records=n, seconds=n, worst_partition=0) for n in range(30)],
        breakers=[BreakerView(breaker=f"b{n}", state="open" if n == 29 else "closed") for n in range(30)],
        bottleneck="",
        relief=None,
        workers_needed=None,
    )
    screen = io.StringIO()
    Console(file=screen, width=120).print(drawn(now, lines=40))
    lines = screen.getvalue().splitlines()
    assert 36 <= len(lines) <= 40
    for first in ("9 ", "flow-150 ", "t29 ", "b29 "):
        (heading,) = [number - 1 for number, line in enumerate(lines) if line.startswith(first)]
        assert lines[heading].split()[0] in {"WORKER", "WORKFLOW", "TOPIC", "BREAKER"}
    assert sum(line.startswith("and ") for line in lines) == 4
    screen = io.StringIO()
    Console(file=screen, width=120).print(drawn(now))
    assert len(screen.getvalue().splitlines()) == 1 + 4 * 2 + 10 + 200 + 30 + 30


@pytest.mark.parametrize(
    ("sizes", "room", "wanted"),
    [([3, 100, 2], 30, [3, 25, 2]), ([50, 60], 20, [10, 10]), ([1, 9], 0, [1, 2]), ([], 10, []), ([4, 5], 90, [4, 5])],
)
def test_small_tables_stay_whole_and_the_others_share_what_is_left(
    sizes: list[int], room: int, wanted: list[int]
) -> None:
    assert shares(sizes, room) == wanted


def test_a_run_that_was_undone_has_failed() -> None:
    def look(at_s: float, count: float) -> Scrape:
        samples = {
            "headrace_runs_finished_total": [
                ({"workflow": "fulfil", "status": status}, count)
                for status in ("succeeded", "compensated", "cancelled")
            ]
        }
        return Scrape(worker="0", url="a", at_s=at_s, samples=samples)

    (flow,) = view([look(0, 0)], [look(1, 2)]).workflows
    assert (flow.finished_per_s, flow.failed_per_s) == (6, 2)


def test_a_look_without_any_worker_has_nothing_to_say() -> None:
    empty = view([], [Scrape(worker="0", url="x", at_s=0, failure="refused")])
    assert (empty.workflows, empty.bottleneck, empty.workers_needed) == ([], "", None)


def test_on_a_terminal_it_is_drawn_anew_until_ctrl_c(here: Path, workers: list[Worker]) -> None:
    drawn = bytearray()
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "top", "--interval", "200ms", "--metrics-url", workers[0].port.url],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        cwd=here,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(inside)

    def read_until(*texts: str) -> str:
        """What is drawn from now on, as text, once all of these are in it."""
        before = len(drawn)
        while True:
            shown = _CONTROL.sub("", drawn[before:].decode("utf-8", "ignore"))
            if all(text in shown for text in texts):
                return shown
            ready, _, _ = select.select([terminal], [], [], 60)
            assert ready, shown
            drawn.extend(os.read(terminal, 1 << 16))

    try:
        read_until("pool:mail limits", "fulfil", "7 running, 2 waiting", "orders", "bank", "open")
        assert ENTER_SCREEN in drawn
        workers[0].work(100)
        read_until("charge", "20.0")  # a later look: the task, with its mean
        before = len(drawn)
        process.send_signal(signal.SIGINT)
        while LEAVE_SCREEN not in drawn[before:]:
            drawn.extend(os.read(terminal, 1 << 16))
        assert process.wait(60) == 130
        assert b"Traceback" not in drawn
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


@pytest.mark.parametrize(("limit", "needed"), [("pool:mail", 4), ("breaker:bank", None), ("partition:orders/1", None)])
def test_workers_are_not_asked_for_where_they_would_not_help(
    headrace: Headrace, workers: list[Worker], limit: str, needed: int | None
) -> None:
    for worker in workers:
        assert FORECAST.bottleneck is not None
        limited = replace(FORECAST, bottleneck=replace(FORECAST.bottleneck, resource=limit))
        worker.observer.show(lambda limited=limited: limited)
    answer = headrace("top", "--once", "--interval", "200ms", "--metrics-port", port_of(workers[0]), "-o", "json")
    assert (answer.json["bottleneck"], answer.json["workers_needed"]) == (limit, needed)
