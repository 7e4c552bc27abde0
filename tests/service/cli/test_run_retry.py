"""`headrace run retry|dismiss` on a run log whose records are known one by one."""

import asyncio

import msgspec
import pytest

from headrace.service.cli.exit_code import ExitCode
from headrace.topics.outcome import Emitted, RunEnded, RunStatus
from tests.service.cli.conftest import Headrace
from tests.service.cli.recorded import Recording
from tests.service.cli.test_run_commands import failed, succeeded


@pytest.fixture
def runs(headrace: Headrace) -> dict[str, str]:
    """A run that failed at its third task, one that failed while its key is taken again, one that succeeded, and one that is open."""
    made: dict[str, str] = {}

    async def record() -> None:
        async with Recording() as recording:
            log = await recording.partition(0)
            broken = made["failed"] = await log.start(1, key="A-1")
            await log.outcome(succeeded(broken, "/1/charge"))
            await log.outcome(
                Emitted(run=broken, step="/2/emit", topic="orders.fulfilled", type="done", data=msgspec.Raw(b"1"))
            )
            await log.outcome(succeeded(broken, "/3/charge"))
            await log.outcome(failed(broken, "/4/charge", retry_after_ms=None))
            await log.outcome(RunEnded(run=broken, status=RunStatus.FAILED, error="TaskFailed", message="gone"))
            done = made["done"] = await log.start(2)
            await log.outcome(RunEnded(run=done, status=RunStatus.SUCCEEDED))
            made["open"] = await log.start(3)

    asyncio.run(record())
    return made


def test_a_retry_is_a_new_run_and_says_where_its_results_came_from(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "retry", runs["failed"], "-o", "json")
    assert answer.code == 0, answer.err
    new = answer.json["id"]
    assert answer.json == {"id": new, "command": "retry", "retry_of": runs["failed"], "copied": 3}
    rows = headrace("run", "history", new, "-o", "json").json
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("retry", None),
        ("copied", "/1/charge"),
        ("copied", "/2/emit"),
        ("copied", "/3/charge"),
    ]
    assert rows[0]["detail"] == f"of run {runs['failed']}"
    assert {row["detail"] for row in rows[1:]} == {f"from run {runs['failed']}"}
    detail = headrace("run", "get", new, "-o", "json").json
    assert (detail["retry_of"], detail["status"], detail["trigger"]) == (runs["failed"], "running", "manual")
    assert detail["key"] == "A-1"


def test_the_failed_run_shows_its_retry_and_stays_as_it_ended(headrace: Headrace, runs: dict[str, str]) -> None:
    before = headrace("run", "get", runs["failed"], "-o", "json").json
    assert (before["status"], before["retriable"], before["retry"]) == ("failed", True, "")
    new = headrace("run", "retry", runs["failed"], "-o", "json").json["id"]
    after = headrace("run", "get", runs["failed"], "-o", "json").json
    assert after == {**before, "retry": new}
    last = headrace("run", "history", runs["failed"], "-o", "json").json[-1]
    assert (last["kind"], last["detail"]) == ("retry", f"as run {new}")


def test_failed_runs_that_may_be_retried_are_listed_as_such(headrace: Headrace, runs: dict[str, str]) -> None:
    (row,) = headrace("run", "list", "--status", "failed", "-o", "json").json
    assert (row["id"], row["retriable"]) == (runs["failed"], True)
    assert headrace("run", "dismiss", runs["failed"]).code == 0
    (row,) = headrace("run", "list", "--status", "failed", "-o", "json").json
    assert (row["id"], row["retriable"]) == (runs["failed"], False)


@pytest.mark.parametrize("task", ["/3/charge", "charge"])
def test_from_a_task(headrace: Headrace, runs: dict[str, str], task: str) -> None:
    answer = headrace("run", "retry", runs["failed"], "--from", task, "-o", "json")
    assert answer.json["copied"] == (2 if task.startswith("/") else 0)
    first = headrace("run", "history", answer.json["id"], "-o", "json").json[0]
    assert first["step"] == ("/3/charge" if task.startswith("/") else "/1/charge")


def test_a_task_that_was_not_over_is_not_found(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "retry", runs["failed"], "--from", "/9/charge")
    assert answer.code == ExitCode.NOT_FOUND
    assert answer.err.startswith("HR4105")
    assert "/3/charge" in answer.err
    assert headrace("run", "get", runs["failed"], "-o", "json").json["retry"] == ""


def test_a_second_retry_waits_for_the_first(headrace: Headrace, runs: dict[str, str]) -> None:
    new = headrace("run", "retry", runs["failed"], "-o", "json").json["id"]
    answer = headrace("run", "retry", runs["failed"])
    assert answer.code == ExitCode.CONFLICT
    assert new in answer.err


@pytest.mark.parametrize("verb", ["retry", "dismiss"])
@pytest.mark.parametrize("name", ["done", "open"])
def test_only_failed_runs(headrace: Headrace, runs: dict[str, str], verb: str, name: str) -> None:
    answer = headrace("run", verb, runs[name])
    assert answer.code == ExitCode.CONFLICT
    assert answer.err.startswith("HR4102")


@pytest.mark.parametrize("verb", ["retry", "dismiss"])
def test_an_unknown_run_is_not_found(headrace: Headrace, runs: dict[str, str], verb: str) -> None:
    assert headrace("run", verb, "0." + "a" * 20).code == ExitCode.NOT_FOUND


def test_a_dismissed_run_cannot_be_retried(headrace: Headrace, runs: dict[str, str]) -> None:
    assert headrace("run", "dismiss", runs["failed"], "-o", "json").json == {"id": runs["failed"], "command": "dismiss"}
    assert headrace("run", "retry", runs["failed"]).code == ExitCode.CONFLICT
    assert headrace("run", "dismiss", runs["failed"]).code == ExitCode.CONFLICT
    assert headrace("run", "history", runs["failed"], "-o", "json").json[-1]["kind"] == "dismiss"


def test_all_commands_fold_by_the_settings_of_the_app(headrace: Headrace, runs: dict[str, str]) -> None:
    """A retry that came too late by `runs.retry_retention` made no run, whoever asks."""

    assert headrace("run", "retry", runs["failed"]).code == 0
    for settings, open_ in ((), 2), (("--set", "runs.retry_retention=0s"), 1):
        (row,) = headrace("workflow", "list", "-o", "json", *settings).json
        counted = headrace("run", "count", "--status", "running", "-o", "json", *settings).json
        assert row["open"] == sum(each["runs"] for each in counted) == open_
