"""`headrace approval` on a run log whose records are known one by one."""

import asyncio
import getpass

import msgspec
import pytest

from headrace.service.cli.exit_code import ExitCode
from headrace.topics.approval import Verdict
from headrace.topics.command import Approve
from headrace.topics.identity import ClientId
from headrace.topics.outcome import ApprovalRequested, RunEnded, RunStatus, StepsCancelled, TimerArmed
from headrace.topics.run_record import CommandRecord
from tests.service.cli.conftest import Headrace
from tests.service.cli.recorded import Recording

ASK = "/1/approval"
FAR_MS = 4_102_444_800_000  # 2100


@pytest.fixture
def runs(headrace: Headrace) -> dict[str, str]:
    """Runs: one asks finance or the boss, one's time is over (nobody has said so yet), one asks anybody, one was rejected, one gave it up."""
    made: dict[str, str] = {}

    async def record() -> None:
        async with Recording() as recording:
            log = await recording.partition(0)
            pay = made["pay"] = await log.start(1, key="A-1")
            await log.outcome(ApprovalRequested(pay, ASK, "Pay 1 000?", ("finance", "boss"), FAR_MS))
            late = made["late"] = await log.start(2)
            await log.outcome(ApprovalRequested(late, ASK, "Late?", (), 1_700_000_000_000))
            rejected = made["rejected"] = await log.start(3)
            await log.outcome(ApprovalRequested(rejected, ASK, "Ship?"))
            decision = Approve(rejected, ASK, Verdict.REJECTED, "bob", "too far")
            await log.append(CommandRecord(id=ClientId("bob"), body=decision))
            withdrawn = made["withdrawn"] = await log.start(4)
            await log.outcome(ApprovalRequested(withdrawn, ASK, "Stop?"))
            await log.outcome(StepsCancelled(withdrawn, (ASK,)))
            await log.outcome(RunEnded(run=withdrawn, status=RunStatus.SUCCEEDED))
            other = await recording.partition(5)
            anybody = made["anybody"] = await other.start(5, workflow="restock")
            await other.outcome(ApprovalRequested(anybody, "/2/0/1/approval", "Order more?"))

    asyncio.run(record())
    return made


def id_of(run: str) -> str:
    return f"{run}-1-approval"


def test_list_shows_what_waits_for_somebody(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("approval", "list", "-o", "json")
    assert answer.code == 0, answer.err
    rows = {row["id"]: row for row in answer.json}
    anybody = f"{runs['anybody']}-2-0-1-approval"
    assert rows.keys() == {id_of(runs["pay"]), id_of(runs["late"]), anybody}
    requested = [row["requested_at"] for row in answer.json]
    assert requested == sorted(requested, reverse=True)
    pay = rows[id_of(runs["pay"])]
    assert pay == {
        "id": id_of(runs["pay"]),
        "run": runs["pay"],
        "step": ASK,
        "namespace": "default",
        "workflow": "fulfil",
        "key": "A-1",
        "title": "Pay 1 000?",
        "roles": ["finance", "boss"],
        "status": "pending",
        "requested_at": pay["requested_at"],
        "due_at": "2100-01-01T00:00:00.000Z",
        "decided_at": None,
        "by": None,
        "note": None,
    }
    assert rows[anybody]["due_at"] is None
    table = headrace("approval", "list").out
    assert "Pay 1 000?" in table
    assert "finance, boss" in table


def test_list_filters(headrace: Headrace, runs: dict[str, str]) -> None:
    def found(*arguments: str) -> set[str]:
        return {row["run"] for row in headrace("approval", "list", "-o", "json", *arguments).json}

    open_ = {runs["pay"], runs["late"], runs["anybody"]}
    assert found("--role", "finance") == open_
    assert found("--role", "clerk") == open_ - {runs["pay"]}
    assert found("--workflow", "restock") == found("--workflow", "default/restock") == {runs["anybody"]}
    assert found("--status", "rejected,withdrawn") == {runs["rejected"], runs["withdrawn"]}
    assert found("--status", "expired") == set()
    assert found("--status", "all", "--limit", "0") == set(runs.values())
    assert len(found("--limit", "2")) == 2
    answer = headrace("approval", "list", "--status", "open")
    assert (answer.code, "pending" in answer.err) == (ExitCode.USAGE, True)
    assert headrace("approval", "list", "--limit", "-1").code == ExitCode.USAGE


def test_get_shows_what_was_decided(headrace: Headrace, runs: dict[str, str]) -> None:
    row = headrace("approval", "get", id_of(runs["rejected"]), "-o", "json").json
    assert (row["status"], row["by"], row["note"]) == ("rejected", "bob", "too far")
    assert row["decided_at"] >= row["requested_at"]
    row = headrace("approval", "get", id_of(runs["withdrawn"]), "-o", "json").json
    assert (row["status"], row["by"]) == ("withdrawn", None)
    assert row["decided_at"] is not None


def test_approve_is_read_back(headrace: Headrace, runs: dict[str, str]) -> None:
    id_ = id_of(runs["pay"])
    answer = headrace("approval", "approve", id_, "--role", "boss", "--note", "fine", "--by", "ann", "-o", "json")
    assert answer.code == 0, answer.err
    row = answer.json
    assert (row["id"], row["status"], row["by"], row["note"]) == (id_, "approved", "ann", "fine")
    assert headrace("approval", "get", id_, "-o", "json").json == row
    rows = headrace("run", "history", runs["pay"], "-o", "json").json
    assert [(each["kind"], each["step"], each["detail"]) for each in rows[1:]] == [
        ("approval.requested", ASK, "Pay 1 000?; by finance, boss; until 2100-01-01T00:00:00.000Z"),
        ("approve", ASK, "approved by ann: fine"),
    ]


def test_reject_needs_no_role_where_none_is_asked_for(headrace: Headrace, runs: dict[str, str]) -> None:
    id_ = f"{runs['anybody']}-2-0-1-approval"
    row = headrace("approval", "reject", id_, "-o", "json").json
    assert (row["status"], row["by"], row["note"]) == ("rejected", getpass.getuser(), "")


def test_the_first_decision_counts(headrace: Headrace, runs: dict[str, str]) -> None:
    id_ = id_of(runs["pay"])
    assert headrace("approval", "approve", id_, "--role", "boss", "--by", "ann").code == 0
    answer = headrace("approval", "reject", id_, "--role", "finance", "--by", "bob")
    assert answer.code == ExitCode.CONFLICT
    assert "HR4107" in answer.err
    assert "approved by ann" in answer.err
    assert headrace("approval", "get", id_, "-o", "json").json["by"] == "ann"


@pytest.mark.parametrize("which", ["rejected", "withdrawn"])
def test_what_is_over_cannot_be_decided(headrace: Headrace, runs: dict[str, str], which: str) -> None:
    answer = headrace("approval", "approve", id_of(runs[which]))
    assert answer.code == ExitCode.CONFLICT
    assert "HR4107" in answer.err
    assert which in answer.err


def test_a_decision_behind_the_deadline_does_not_count(headrace: Headrace, runs: dict[str, str]) -> None:
    answer = headrace("approval", "approve", id_of(runs["late"]))
    assert answer.code == ExitCode.CONFLICT
    assert "HR4107" in answer.err
    assert "2023-11-14" in answer.err
    assert headrace("approval", "get", id_of(runs["late"]), "-o", "json").json["status"] == "pending"


@pytest.mark.parametrize("role", [(), ("--role", "clerk")])
def test_the_role_must_be_one_of_those(headrace: Headrace, runs: dict[str, str], role: tuple[str, ...]) -> None:
    answer = headrace("approval", "approve", id_of(runs["pay"]), *role)
    assert answer.code == ExitCode.NOT_ALLOWED
    assert "HR4108" in answer.err
    assert "finance, boss" in answer.err
    rows = headrace("run", "history", runs["pay"], "-o", "json").json
    assert [row["kind"] for row in rows] == ["start", "approval.requested"]  # nothing was sent


@pytest.mark.parametrize("command", ["get", "approve", "reject"])
@pytest.mark.parametrize(
    "id_",
    [
        "nothing",
        "0.0123456789abcdef0123-1-approval",
        "999.0123456789abcdef0123-1-approval",
        "{pay}",
        "{pay}-2-approval",
    ],
)
def test_what_is_not_there_is_not_found(headrace: Headrace, runs: dict[str, str], command: str, id_: str) -> None:
    answer = headrace("approval", command, id_.format(**runs))
    assert answer.code == ExitCode.NOT_FOUND
    assert "HR4106" in answer.err


@pytest.mark.parametrize(
    "arguments", [("--by", ""), ("--by", "b" * 201), ("--note", "n" * 9_000), ("--role", "r" * 201)]
)
def test_texts_have_limits(headrace: Headrace, runs: dict[str, str], arguments: tuple[str, ...]) -> None:
    answer = headrace("approval", "approve", id_of(runs["late"]), *arguments)
    assert answer.code == ExitCode.ERROR
    assert "HR4109" in answer.err


def test_a_run_says_that_it_waits_for_somebody(headrace: Headrace, runs: dict[str, str]) -> None:
    row = headrace("run", "get", runs["pay"], "-o", "json").json
    assert (row["status"], row["waits_for"]) == ("running", "approval")
    assert row["waiting"] == [
        {
            "step": ASK,
            "waits_for": "approval",
            "until": "2100-01-01T00:00:00.000Z",
            "approval": id_of(runs["pay"]),
            "title": "Pay 1 000?",
            "roles": ["finance", "boss"],
        }
    ]
    words = headrace("run", "get", runs["pay"]).out
    assert "/1/approval for approval by finance or boss until 2100-01-01T00:00:00.000Z" in words
    anybody = headrace("run", "get", runs["anybody"]).out
    assert "/2/0/1/approval for approval\n" in anybody


def test_what_a_trimmed_log_knows_is_shown(headrace: Headrace) -> None:
    made: dict[str, str] = {}

    async def record() -> None:
        async with Recording() as recording:
            log = await recording.partition(0)
            over = made["over"] = await log.start(1)
            await log.outcome(ApprovalRequested(over, ASK, "Ship?"))
            await log.append(CommandRecord(id=ClientId("bob"), body=Approve(over, ASK, Verdict.REJECTED, "bob")))
            await log.outcome(TimerArmed(over, "/2/sleep", FAR_MS))
            open_ = made["open"] = await log.start(2)
            await log.outcome(ApprovalRequested(open_, ASK, "Pay?", ("boss",)))
            await log.checkpoint()

    asyncio.run(record())
    (row,) = headrace("approval", "list", "-o", "json").json
    assert (row["run"], row["title"], row["roles"]) == (made["open"], "Pay?", ["boss"])
    answer = headrace("approval", "list", "--status", "all")
    assert "may be missing" in answer.err
    answer = headrace("approval", "get", id_of(made["over"]))
    assert answer.code == ExitCode.NOT_FOUND
    assert "trimmed" in answer.err
    assert headrace("approval", "approve", id_of(made["open"]), "--role", "boss").code == 0


def test_every_format_has_the_same_approvals(headrace: Headrace, runs: dict[str, str]) -> None:
    json_rows = headrace("approval", "list", "-o", "json").json
    assert [msgspec.json.decode(line) for line in headrace("approval", "list", "-o", "jsonl").lines] == json_rows
    assert headrace("approval", "list", "-o", "name").lines == [row["id"] for row in json_rows]
