"""What README and guide show is what a reader gets: the app type-checks, runs, and ends as the text says."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.dev_process import BOUND_S, DevProcess
from tests.project.repository import ROOT
from tests.project.snippets import files_in, written

GUIDE, README = ROOT / "docs" / "guide.md", ROOT / "README.md"
DOCUMENTS = pytest.mark.parametrize("document", [README, GUIDE], ids=["README", "guide"])

ORDER = {"id": "O-1", "item": "lamp", "quantity": 2}
GUIDE_RUNS: list[tuple[str, str, str | None, Any, str, Any]] = [
    # workflow, topic, type, data, status, result (a type: only its kind is known)
    ("quote", "quotes", None, ORDER, "succeeded", 800),
    ("ship", "shipments", None, ORDER, "succeeded", ["I-O-1", "T-O-1"]),
    ("days_to_delivery", "availability", None, ORDER, "succeeded", 7),
    ("days_to_delivery", "availability", None, ORDER | {"item": "unicorn"}, "succeeded", None),
    ("basket", "baskets", None, ["a", "bb", "ccc"], "succeeded", 600),
    ("remind", "reminders", None, ORDER, "succeeded", "O-1 still waits for its payment"),
    ("greet", "greetings", None, "Ada", "succeeded", str),
    ("pay", "payments", None, ORDER | {"item": "yacht"}, "succeeded", "declined"),
    ("pay", "payments", None, ORDER | {"item": "flaky"}, "succeeded", "paid"),
    ("parcel", "parcels", None, ORDER, "compensated", None),
    ("cart", "carts", None, [ORDER, ORDER | {"id": "O-2", "quantity": 1}], "succeeded", 1_200),
    ("restock", "stock.levels", "com.shop.counted", ORDER, "succeeded", 42),
    ("draw", "draws", None, ["Ada", "Bob"], "succeeded", str),
]


@DOCUMENTS
def test_the_snippets_type_check_strictly(document: Path, tmp_path: Path) -> None:
    written(document, tmp_path)
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


class Reader:
    """Somebody who starts the app of a document, publishes, and looks at what became of it."""

    def __init__(self, dev: DevProcess) -> None:
        self._dev = dev

    def sends(self, topic: str, data: Any, kind: str | None = None) -> str:
        """Publish; the record's place, as runs name their source."""
        attributes = [] if kind is None else ["--type", kind]
        said = self._dev.cli("event", "publish", topic, "--data", json.dumps(data), *attributes, "-o", "json")
        (place,) = json.loads(said)
        return f"{topic}/{place['partition']}/{place['offset']}"

    def ended(self, source: str) -> dict[str, Any]:
        """The run that this record started, once it has ended."""
        until = time.monotonic() + BOUND_S
        while time.monotonic() < until:
            for run in self._dev.runs():
                if run["source"] == source and run["ended_at"]:
                    return json.loads(self._dev.cli("run", "get", run["id"], "-o", "json"))
        raise AssertionError(f"no run of {source} has ended")

    def triggers(self, workflow: str) -> dict[str, Any]:
        """A run of one of the workflow's schedules, started by hand, once it has ended."""
        until = time.monotonic() + BOUND_S
        while time.monotonic() < until:
            for schedule in json.loads(self._dev.cli("schedule", "list", "-o", "json")):
                if schedule["workflow"] == workflow:
                    run = json.loads(self._dev.cli("schedule", "trigger", schedule["id"], "-o", "json"))["id"]
                    self._dev.cli("run", "watch", run)
                    return json.loads(self._dev.cli("run", "get", run, "-o", "json"))
        raise AssertionError(f"{workflow} has no schedule")

    def asked(self, title: str) -> str:
        """The approval that waits with this title, once there is one."""
        until = time.monotonic() + BOUND_S
        while time.monotonic() < until:
            for approval in json.loads(self._dev.cli("approval", "list", "--role", "finance", "-o", "json")):
                if approval["title"] == title:
                    return approval["id"]
        raise AssertionError(f"nobody asks {title!r}")

    def decides(self, verb: str, approval: str, *arguments: str) -> None:
        """Approve or reject."""
        self._dev.cli("approval", verb, approval, *arguments)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("guide")
    with DevProcess(written(GUIDE, folder), folder=folder) as dev:
        yield Reader(dev)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workflow", "topic", "kind", "data", "status", "result"),
    GUIDE_RUNS,
    ids=[f"{number}-{row[0]}" for number, row in enumerate(GUIDE_RUNS)],
)
def test_the_guides_workflows_end_as_it_says(
    guide: Reader, workflow: str, topic: str, kind: str | None, data: Any, status: str, result: Any
) -> None:
    run = guide.ended(guide.sends(topic, data, kind))
    assert (run["workflow"], run["status"]) == (workflow, status)
    if isinstance(result, type):
        assert isinstance(run["result"], result)
    else:
        assert run["result"] == result


def test_every_workflow_of_the_guide_is_run() -> None:
    text = files_in(GUIDE)["app.py"]
    run = {row[0] for row in GUIDE_RUNS} | {"spend", "morning_report", "clean_up"}
    assert set(re.findall(r"@workflow\(.*?\)\nasync def (\w+)", text, re.DOTALL)) == run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "said"), [("approve", "ann lets us buy"), ("reject", "rejected until March")], ids=["approve", "reject"]
)
def test_somebody_decides_what_the_guides_workflow_asks(guide: Reader, verb: str, said: str) -> None:
    source = guide.sends("expenses", ORDER)
    asked = guide.asked("Buy 2 x lamp?")
    guide.decides(verb, asked, "--role", "finance", "--note", "until March", "--by", "ann")
    run = guide.ended(source)
    assert (run["id"], run["result"]) == (asked.partition("-")[0], said)


@pytest.mark.slow
@pytest.mark.parametrize(("workflow", "result"), [("morning_report", 250), ("clean_up", None)])
def test_the_guides_schedules_start_what_they_are_asked_to(guide: Reader, workflow: str, result: Any) -> None:
    run = guide.triggers(workflow)
    assert (run["workflow"], run["status"], run["result"]) == (workflow, "succeeded", result)


def test_the_guides_tests_pass(tmp_path: Path) -> None:
    written(GUIDE, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.slow
def test_the_readmes_app_runs_and_sends_what_it_promises(tmp_path: Path) -> None:
    commands = README.read_text()
    data = re.search(r"--data '(\{.*?\})'", commands)
    assert data is not None
    with DevProcess(written(README, tmp_path), folder=tmp_path) as dev:
        reader = Reader(dev)
        run = reader.ended(reader.sends("orders", json.loads(data[1]), "com.shop.order.placed"))
        assert (run["workflow"], run["status"]) == ("fulfil", "succeeded")
        (event,) = dev.tail("orders.fulfilled", 1)
        assert event["type"] == "com.shop.order.fulfilled"
        assert event["data"] == run["result"]
