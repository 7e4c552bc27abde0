"""`headrace run ...` on a run log whose records are known one by one."""

import asyncio

import msgspec
import pytest

from headrace.service.cli.exit_code import ExitCode
from headrace.topics.errors import Cause
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutboxProgress,
    ParkReason,
    RunEnded,
    RunParked,
    RunStatus,
    Sent,
    TimerArmed,
)
from tests.service.cli.conftest import Headrace
from tests.service.cli.recorded import Recording

UNKNOWN = "0." + "a" * 20


def succeeded(run: str, step: str, number: int = 1) -> AttemptSucceeded:
    return AttemptSucceeded(
        run=run,
        step=step,
        handler="charge",
        number=number,
        result=msgspec.Raw(b'{"ok":true}'),
        started_at_ms=1,
        duration_ms=12.5,
    )


def failed(run: str, step: str, number: int = 1, retry_after_ms: int | None = 200) -> AttemptFailed:
    return AttemptFailed(
        run=run,
        step=step,
        handler="charge",
        number=number,
        cause=Cause.RAISED,
        error="shop.Down",
        message="payment is down",
        started_at_ms=1,
        duration_ms=3.25,
        retry_after_ms=retry_after_ms,
    )


@pytest.fixture
def runs(headrace: Headrace) -> dict[str, str]:
    """A run of every kind, by name; `done` first, the others after it."""
    made: dict[str, str] = {}

    async def record() -> None:
        async with Recording() as recording:
            log = await recording.partition(0)
            done = made["done"] = await log.start(1, key="A-1")
            await log.start(1, key="A-1")  # the router's duplicate
            await log.outcome(failed(done, "/1/charge"))
            await log.outcome(succeeded(done, "/1/charge", 2))
            await log.outcome(succeeded(done, "/1/charge", 2), token=99)  # a zombie's
            await log.outcome(succeeded(done, "/1/charge", 2))  # accepted, but too late
            entry = Emitted(run=done, step="/2/emit", topic="orders.fulfilled", type="done", data=msgspec.Raw(b"1"))
            await log.outcome(entry)
            await log.outcome(OutboxProgress(sent=(Sent(f"{done}/2/emit", 3, 7),)))
            await log.outcome(RunEnded(run=done, status=RunStatus.SUCCEEDED, result=msgspec.Raw(b'{"tracking":"T"}')))
            broken = made["failed"] = await log.start(2, key="A-2")
            await log.outcome(failed(broken, "/1/charge", retry_after_ms=None))
            await log.outcome(
                RunEnded(
                    run=broken, status=RunStatus.FAILED, error="TaskFailed", message="gone", failed_step="/1/charge"
                )
            )
            parked = made["parked"] = await log.start(3, key="A-3", workflow="restock")
            await log.outcome(
                RunParked(
                    run=parked,
                    reason=ParkReason.NONDETERMINISTIC,
                    step="/1/charge",
                    expected="call charge",
                    found="sleep",
                )
            )
            other = await recording.partition(5)
            open_ = made["open"] = await other.start(4, key="A-4")
            await other.outcome(TimerArmed(run=open_, step="/1/sleep", due_at_ms=4_102_444_800_000))
            await other.outcome(failed(open_, "/2/charge"))

    asyncio.run(record())
    return made


def test_list_shows_all_runs_newest_first(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "list", "-o", "json")
    assert answer.code == 0
    rows = answer.json
    assert {row["id"]: row["status"] for row in rows} == {
        runs["done"]: "succeeded",
        runs["failed"]: "failed",
        runs["parked"]: "parked",
        runs["open"]: "running",
    }
    started = [row["started_at"] for row in rows]
    assert started == sorted(started, reverse=True)


def test_list_filters(headrace: Headrace, runs: dict[str, str]) -> None:
    def ids(*arguments: str) -> set[str]:
        return set(headrace("run", "list", "-o", "name", *arguments).lines)

    assert ids("--status", "failed", "--status", "parked") == {runs["failed"], runs["parked"]}
    assert ids("--status", "succeeded,running") == {runs["done"], runs["open"]}
    assert ids("--workflow", "restock") == ids("--workflow", "default/restock") == {runs["parked"]}
    assert ids("--key", "A-4") == {runs["open"]}
    assert ids("--since", "1h") == set(runs.values())
    assert ids("--since", "0s") == set()
    assert len(ids("--limit", "2")) == 2
    assert ids("--limit", "0") == set(runs.values())


def test_nothing_found_is_an_empty_answer(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "list", "--key", "nobody", "-o", "json")
    assert (answer.code, answer.json) == (0, [])
    table = headrace("run", "list", "--key", "nobody")
    assert (table.code, table.out, table.err) == (0, "", "Nothing found.\n")


def test_a_summary_counts_attempts_and_retries_that_had_an_effect(headrace: Headrace, runs: dict[str, str]) -> None:
    (row,) = headrace("run", "list", "--key", "A-1", "-o", "json").json
    assert (row["attempts"], row["retries"]) == (2, 1)
    assert row["source"] == "orders/0/1"
    assert row["duration_ms"] >= 0
    (row,) = headrace("run", "list", "--key", "A-2", "-o", "json").json
    assert (row["error"], row["message"], row["failed_step"]) == ("TaskFailed", "gone", "/1/charge")


def test_every_format_has_the_same_runs(headrace: Headrace, runs: dict[str, str]) -> None:
    import yaml

    json_rows = headrace("run", "list", "-o", "json").json
    jsonl = [msgspec.json.decode(line) for line in headrace("run", "list", "-o", "jsonl").lines]
    assert jsonl == json_rows
    assert yaml.safe_load(headrace("run", "list", "-o", "yaml").out) == json_rows
    assert headrace("run", "list", "-o", "name").lines == [row["id"] for row in json_rows]
    table = headrace("run", "list").lines
    assert table[0].startswith("RUN")
    assert [line.split()[0] for line in table[1:]] == [row["id"] for row in json_rows]


def test_count_is_by_workflow_and_status(headrace: Headrace, runs: dict[str, str]) -> None:
    rows = headrace("run", "count", "-o", "json").json
    assert {(row["workflow"], row["status"]): row["runs"] for row in rows} == {
        ("fulfil", "succeeded"): 1,
        ("fulfil", "failed"): 1,
        ("fulfil", "running"): 1,
        ("restock", "parked"): 1,
    }


def test_get_shows_input_result_and_what_a_run_waits_for(headrace: Headrace, runs: dict[str, str]) -> None:
    done = headrace("run", "get", runs["done"], "-o", "json").json
    assert (done["input"], done["result"], done["waiting"]) == ({"id": "A-1"}, {"tracking": "T"}, [])
    open_ = headrace("run", "get", runs["open"], "-o", "json").json
    assert {(step["step"], step["waits_for"]) for step in open_["waiting"]} == {
        ("/1/sleep", "timer"),
        ("/2/charge", "attempt 2"),
    }
    parked = headrace("run", "get", runs["parked"]).out
    assert "call charge" in parked
    assert "sleep" in parked
    assert "nondeterministic: expected call charge, found: sleep" in headrace("run", "history", runs["parked"]).out


def test_history_has_every_record_and_why_some_do_not_count(headrace: Headrace, runs: dict[str, str]) -> None:
    rows = headrace("run", "history", runs["done"], "-o", "json").json
    assert [(row["kind"], row["effect"], row["reason"]) for row in rows] == [
        ("start", "accepted", None),
        ("start", "skipped", "duplicate"),
        ("attempt.failed", "accepted", None),
        ("attempt.succeeded", "accepted", None),
        ("attempt.succeeded", "skipped", "stale_token"),
        ("attempt.succeeded", "none", None),
        ("emitted", "accepted", None),
        ("outbox.sent", "accepted", None),
        ("run.ended", "accepted", None),
    ]
    tried = rows[2]
    assert (tried["step"], tried["attempt"], tried["duration_ms"]) == ("/1/charge", 1, 3.25)
    assert (tried["cause"], tried["error"], tried["retry_after_ms"]) == ("raised", "shop.Down", 200)
    assert [row["offset"] for row in rows] == sorted(row["offset"] for row in rows)
    assert rows[0]["record"]["body"]["workflow"] == "fulfil"
    table = headrace("run", "history", runs["done"]).out
    assert "skipped: stale_token" in table
    assert "payment is down" in table


@pytest.mark.parametrize("verb", ["get", "history", "watch", "cancel", "resume"])
@pytest.mark.parametrize("run", [UNKNOWN, "nonsense", "99." + "a" * 20])
def test_an_unknown_run_is_not_found(headrace: Headrace, runs: dict[str, str], verb: str, run: str) -> None:
    answer = headrace("run", verb, run)
    assert (answer.code, answer.out) == (ExitCode.NOT_FOUND, "")
    assert answer.err.startswith("HR4101")


def test_watch_ends_as_the_run_ended(headrace: Headrace, runs: dict[str, str]) -> None:
    assert headrace("run", "watch", runs["done"]).code == ExitCode.OK
    answer = headrace("run", "watch", runs["failed"], "-o", "jsonl")
    assert answer.code == ExitCode.NOT_SUCCEEDED
    assert msgspec.json.decode(answer.lines[-1])["kind"] == "run.ended"


def test_watch_gives_up_after_its_timeout(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "watch", runs["open"], "--timeout", "200ms")
    assert answer.code == ExitCode.TIMED_OUT
    assert answer.err.startswith("HR4103")


def test_what_has_ended_cannot_be_cancelled(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "cancel", runs["done"])
    assert answer.code == ExitCode.CONFLICT
    assert "succeeded" in answer.err
    kinds = [row["kind"] for row in headrace("run", "history", runs["done"], "-o", "json").json]
    assert "cancel" not in kinds


def test_only_a_parked_run_can_be_resumed(headrace: Headrace, runs: dict[str, str]) -> None:
    assert headrace("run", "resume", runs["open"]).code == ExitCode.CONFLICT
    answer = headrace("run", "resume", runs["parked"], "-o", "json")  # no service runs that could park it again
    assert (answer.code, answer.json["status"]) == (0, "running")
    assert headrace("run", "resume", runs["parked"]).code == ExitCode.CONFLICT


def test_a_cancel_that_nobody_carries_out_times_out_and_is_not_lost(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("run", "cancel", runs["open"], "--reason", "no stock", "--timeout", "1s")
    assert answer.code == ExitCode.TIMED_OUT
    assert "in the run log" in answer.err
    last = headrace("run", "history", runs["open"], "-o", "json").json[-1]
    assert (last["kind"], last["detail"], last["effect"]) == ("cancel", "no stock", "accepted")


def test_without_waiting_the_command_is_only_appended(headrace: Headrace, runs: dict[str, str]) -> None:
    assert headrace("run", "cancel", runs["open"], "--no-wait").code == 0
    assert headrace("run", "history", runs["open"], "-o", "json").json[-1]["kind"] == "cancel"


def test_a_record_that_cannot_be_read_stops_its_partition_only(headrace: Headrace, runs: dict[str, str]) -> None:
    unknown = ("--data", '{"kind":"future"}', "--partition", "3", "--unchecked")
    assert headrace("event", "publish", "headrace.runs", *unknown).code == 0
    answer = headrace("run", "list", "-o", "name")
    assert answer.code == ExitCode.ERROR
    assert set(answer.lines) == set(runs.values())
    assert "headrace.runs/3, offset 0" in answer.err
    assert "HR5101" in answer.err


def test_workflows_are_known_from_the_run_log(headrace: Headrace, runs: dict[str, str]) -> None:
    rows = headrace("workflow", "list", "-o", "json").json
    assert [(row["workflow"], row["open"], row["ended"]) for row in rows] == [("fulfil", 1, 2), ("restock", 1, 0)]
    assert headrace("workflow", "get", "default/restock", "-o", "json").json["runs"] == {"parked": 1}
    assert headrace("workflow", "get", "nope").code == ExitCode.NOT_FOUND


def test_memory_does_not_grow_with_ended_runs(headrace: Headrace) -> None:
    """A limit keeps twice as many summaries at most, whatever the log holds."""
    from headrace.service.run_view.scan import Seen, scan
    from headrace.service.run_view.summary import RunFilter, Summaries
    from headrace.service.settings import Settings
    from headrace.topics.log_embedded import EmbeddedLog
    from tests.service.cli.recorded import LOG

    most = 0

    class Watched(Summaries):
        def see(self, seen: Seen) -> None:
            nonlocal most
            super().see(seen)
            most = max(most, len(self._kept))

    async def record() -> list[str]:
        async with Recording() as recording:
            log = await recording.partition(0)
            for offset in range(60):
                run = await log.start(offset)
                await log.outcome(RunEnded(run=run, status=RunStatus.SUCCEEDED))
        summaries = Watched(RunFilter(limit=5))
        async with EmbeddedLog(LOG, owner=False) as log:
            await scan(log, Settings(), summaries)
        assert sum(summaries.counts.values()) == 60
        return [summary.id for summary in summaries.newest_first()]

    assert len(asyncio.run(record())) == 5
    assert most <= 10


# --- a trimmed log --------------------------------------------------------------------------------------------------------


@pytest.fixture
def trimmed(headrace: Headrace) -> dict[str, str]:
    """`gone` had ended when its records were trimmed; `open` and `later` were open then, and `later` has ended since."""
    made: dict[str, str] = {}

    async def record() -> None:
        async with Recording() as recording:
            log = await recording.partition(0)
            gone = made["gone"] = await log.start(1)
            await log.outcome(RunEnded(run=gone, status=RunStatus.SUCCEEDED))
            later, open_ = await log.start(2), await log.start(3)
            made.update(later=later, open=open_)
            await log.outcome(failed(later, "/1/charge"))
            await log.outcome(succeeded(later, "/1/charge", 2))
            await log.outcome(failed(open_, "/1/charge"))
            await log.checkpoint()
            await log.outcome(succeeded(later, "/2/ship"))
            await log.outcome(RunEnded(run=later, status=RunStatus.SUCCEEDED))
            new = made["new"] = await log.start(4)
            await log.outcome(succeeded(new, "/1/charge"))

    asyncio.run(record())
    return made


def test_a_trimmed_log_lists_what_is_left_and_says_so(headrace: Headrace, trimmed: dict[str, str]) -> None:
    answer = headrace("run", "list", "-o", "json")
    assert answer.code == 0
    found = {row["id"]: (row["status"], row["attempts"], row["retries"]) for row in answer.json}
    assert found == {
        trimmed["later"]: ("succeeded", 3, 1),
        trimmed["open"]: ("running", 1, 1),
        trimmed["new"]: ("running", 1, 0),
    }
    assert "the run log was trimmed" in answer.err
    counted = headrace("run", "count", "-o", "json")
    assert {row["status"]: row["runs"] for row in counted.json} == {"succeeded": 1, "running": 2}


def test_the_history_of_a_run_whose_first_records_were_trimmed_shows_the_gap(
    headrace: Headrace, trimmed: dict[str, str]
) -> None:
    rows = headrace("run", "history", trimmed["later"], "-o", "json").json
    assert [(row["kind"], row["effect"]) for row in rows] == [
        ("start", "checkpoint"),
        ("trimmed", "checkpoint"),
        ("attempt.succeeded", "accepted"),
        ("run.ended", "accepted"),
    ]
    assert "/1/charge" in rows[1]["detail"]
    assert headrace("run", "history", trimmed["later"]).code == 0


def test_a_run_that_was_open_when_its_log_was_trimmed_is_there(headrace: Headrace, trimmed: dict[str, str]) -> None:
    detail = headrace("run", "get", trimmed["open"], "-o", "json").json
    assert (detail["status"], detail["attempts"]) == ("running", 1)
    assert detail["waiting"][0]["waits_for"] == "attempt 2"
    assert headrace("run", "watch", trimmed["later"], "-o", "json").code == 0


def test_a_run_that_was_trimmed_is_not_found_and_the_answer_says_why(
    headrace: Headrace, trimmed: dict[str, str]
) -> None:
    answer = headrace("run", "get", trimmed["gone"])
    assert answer.code == ExitCode.NOT_FOUND
    assert "were trimmed" in answer.err
