"""`headrace event publish|tail|match` and `headrace topic ...` on an embedded log."""

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from headrace.service import first_record
from headrace.service.cli import event_tail
from headrace.service.cli.exit_code import ExitCode
from tests.kafka_broker.broker import KafkaBroker
from tests.service.cli.conftest import Answer, Headrace

APP = """
from dataclasses import dataclass
from headrace import EventTrigger, Run, handler, workflow

@dataclass
class Order:
    id: str
    total: float

@handler
async def charge(order: Order) -> float:
    return order.total

@workflow(
    on=EventTrigger("orders", "order.placed", attributes={"source": "web"}, filter=lambda event: event.data["total"]
    > 10), key=lambda order: order.id, emits=["orders.done"],
)
async def fulfil(run: Run, order: Order) -> float:
    return await run.call(charge, order)
"""


@pytest.fixture
def app(here: Path) -> Path:
    path = here / "shop_app.py"
    path.write_text(APP)
    return path


@pytest.fixture
def topics(headrace: Headrace, app: Path) -> None:
    assert headrace("topic", "create", app).code == 0


def tail(headrace: Headrace, topic: str, *arguments: str, start: str = "start") -> list[dict[str, Any]]:
    answer = headrace("event", "tail", topic, "--from", start, "--no-follow", "-o", "jsonl", *arguments)
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.lines]


def test_what_transactions_leave_behind_is_no_record_to_wait_for(
    headrace: Headrace, app: Path, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_tail, "READ_S", 0.5)
    monkeypatch.setattr(first_record, "READ_S", 0.5)
    app.write_text(APP.replace('"orders"', '"marked"'))
    servers = ("--bootstrap-servers", kafka.bootstrap_servers)
    headrace("topic", "create", app, *servers, "--app-name", "markers", "--set", "log.partitions=1")

    async def fill() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id="markers") as producer:
            async with producer.transaction():
                await producer.send_and_wait("marked", b"1", partition=0)
            await producer.begin_transaction()
            await producer.send_and_wait("marked", b"2", partition=0)
            await producer.abort_transaction()

    asyncio.run(fill())
    (event,) = tail(headrace, "marked", "--partition", "0", *servers)
    assert event["data"] == 1
    for offset, code in ((0, ExitCode.NOT_FOUND), (1, ExitCode.NOT_FOUND), (2, ExitCode.NOT_FOUND)):
        answer = headrace("event", "match", "marked", "--app", app, "--at", f"0/{offset}", *servers)
        assert answer.code == code
        assert ("has no record" in answer.err) == (offset > 0), answer.err


# --- publish and tail -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("topics")
def test_an_event_with_attributes_is_a_cloud_event(headrace: Headrace) -> None:
    published = headrace(
        *("event", "publish", "orders", "--data", '{"id":"A-1","total":20}', "--key", "A-1"),
        *("--type", "order.placed", "--source", "web", "--subject", "s", "--id", "e-1", "-H", "trace=x", "-o", "json"),
    )
    assert published.code == 0
    (place,) = published.json
    assert (place["topic"], place["id"]) == ("orders", "e-1")
    (event,) = tail(headrace, "orders")
    assert (event["type"], event["source"], event["subject"], event["id"]) == ("order.placed", "web", "s", "e-1")
    assert (event["key"], event["data"]) == ("A-1", {"id": "A-1", "total": 20})
    assert event["headers"] == {"trace": "x"}
    assert (event["partition"], event["offset"]) == (place["partition"], place["offset"])


@pytest.mark.usefixtures("topics")
def test_an_event_without_attributes_is_plain_json(headrace: Headrace) -> None:
    assert headrace("event", "publish", "orders", "--data", "[1,2]", "--partition", "3").code == 0
    (event,) = tail(headrace, "orders")
    assert (event["type"], event["source"], event["id"]) == ("orders", "kafka:orders", "3-0")
    assert event["data"] == [1, 2]


@pytest.mark.usefixtures("topics")
def test_a_line_that_cannot_be_is_named_and_what_is_before_it_is_published(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id":"1"}\n\n{"id":"2"}\n{"no":3}\n{"id":"4"}\n')))
    answer = headrace("event", "publish", "orders", "--data", "-", "--key-from", "id")
    assert answer.code == ExitCode.USAGE
    assert "Line 4 of stdin" in answer.err
    assert "2 events before it are published" in answer.err
    assert sorted(event["key"] for event in tail(headrace, "orders")) == ["1", "2"]


@pytest.mark.usefixtures("topics")
def test_an_event_for_the_run_log_is_a_slip_of_the_hand(headrace: Headrace) -> None:
    answer = headrace("event", "publish", "headrace.runs", "--data", '{"id":"1"}')
    assert answer.code == ExitCode.USAGE
    assert "headrace.runs is the run log" in answer.err
    assert headrace("run", "list").code == 0  # nothing was written that it cannot read


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("attribute", ["type", "source", "id"])
def test_an_attribute_given_as_nothing_is_not_filled_in(headrace: Headrace, attribute: str) -> None:
    answer = headrace("event", "publish", "orders", "--data", "1", f"--{attribute}", "")
    assert answer.code == ExitCode.USAGE
    assert "HR3011" in answer.err
    assert tail(headrace, "orders") == []


@pytest.mark.usefixtures("topics")
def test_no_line_is_no_event(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    answer = headrace("event", "publish", "orders", "--data", "-")
    assert (answer.code, answer.out) == (0, "0 events published to orders.\n")


@pytest.mark.usefixtures("topics")
def test_triggers_are_told_in_words(headrace: Headrace, app: Path) -> None:
    answer = headrace("workflow", "list", "--app", app)
    assert "orders order.placed source=web filter" in answer.out
    assert headrace("workflow", "list", "--app", app, "-o", "json").json[0]["triggers"][0]["filter"] is True


@pytest.mark.usefixtures("topics")
def test_structured_mode(headrace: Headrace) -> None:
    assert headrace("event", "publish", "orders", "--data", '{"a":1}', "--structured", "--type", "t").code == 0
    (event,) = tail(headrace, "orders")
    assert (event["type"], event["data"]) == ("t", {"a": 1})


@pytest.mark.usefixtures("topics")
def test_many_come_from_stdin_and_keep_their_order_per_key(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"id": f"A-{number % 3}", "n": number}) for number in range(1200)]
    whole = json.dumps({"specversion": "1.0", "id": "own", "source": "s", "type": "own.type", "data": {"id": "A-9"}})
    text = io.TextIOWrapper(io.BytesIO("\n".join([*lines, "", whole]).encode()))
    monkeypatch.setattr(sys, "stdin", text)
    answer = headrace("event", "publish", "orders", "--data", "-", "--key-from", "id", "--type", "order.placed")
    assert answer.out == "1201 events published to orders.\n"
    events = tail(headrace, "orders")
    assert len(events) == 1201
    own = next(event for event in events if event["id"] == "own")
    assert (own["type"], own["key"]) == ("own.type", "A-9")
    for key in ("A-0", "A-1", "A-2"):
        mine = [event for event in events if event["key"] == key]
        assert len({event["partition"] for event in mine}) == 1
        numbers = [event["data"]["n"] for event in mine]
        assert numbers == sorted(numbers)


@pytest.mark.usefixtures("topics")
def test_data_from_a_file(headrace: Headrace, here: Path) -> None:
    (here / "order.json").write_text('{\n  "id": "A-1"\n}\n')
    assert headrace("event", "publish", "orders", "--data", "@order.json").code == 0
    assert tail(headrace, "orders")[0]["data"] == {"id": "A-1"}
    assert headrace("event", "publish", "orders", "--data", "@nothing.json").code == ExitCode.NOT_FOUND


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--data", "{"], "HR3006"),
        (["--data", "NaN"], "HR3006"),
        (["--data", "[" * 100 + "]" * 100], "HR3007"),
        (["--data", "1", "--type", "t", "--source", "not a uri"], "HR3011"),
        (["--data", "1", "-H", "ce_id=x"], "HR3010"),
        (["--data", "1", "--key", ""], "HR3002"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_be_a_dead_letter_is_refused_unless_unchecked(
    headrace: Headrace, arguments: list[str], code: str
) -> None:
    answer = headrace("event", "publish", "orders", *arguments)
    assert answer.code == ExitCode.USAGE
    assert answer.err.startswith(code)
    assert tail(headrace, "orders") == []
    if code != "HR3011":  # such an event cannot even be made
        assert headrace("event", "publish", "orders", *arguments, "--unchecked").code == 0
        (event,) = tail(headrace, "orders")
        assert event["error"]["code"] == code


@pytest.mark.usefixtures("topics")
def test_a_missing_topic_or_partition(headrace: Headrace) -> None:
    answer = headrace("event", "publish", "nothing", "--data", "1")
    assert answer.code == ExitCode.NOT_FOUND
    assert answer.err.startswith("HR1201")
    assert headrace("event", "publish", "orders", "--data", "1", "--partition", "8").code == ExitCode.USAGE
    assert headrace("event", "tail", "nothing").code == ExitCode.NOT_FOUND


@pytest.mark.usefixtures("topics")
def test_tail_stops_at_its_limit_and_begins_where_it_is_told(headrace: Headrace) -> None:
    for number in range(5):
        headrace("event", "publish", "orders", "--data", str(number), "--partition", "2")
    assert [event["data"] for event in tail(headrace, "orders", "--limit", "2")] == [0, 1]
    assert [event["data"] for event in tail(headrace, "orders", start="3")] == [3, 4]
    following = headrace("event", "tail", "orders", "--from", "start", "--limit", "5", "-o", "name")
    assert len(following.lines) == 5
    assert headrace("event", "tail", "orders", "--no-follow").out == ""
    assert headrace("event", "tail", "orders", "--from", "middle").code == ExitCode.USAGE


@pytest.mark.usefixtures("topics")
def test_tail_ends_when_nobody_reads_it_any_more(headrace: Headrace, here: Path) -> None:
    headrace("event", "publish", "orders", "--data", "1")
    command = [sys.executable, "-m", "headrace", "event", "tail", "orders", "--from", "start", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=here) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        try:
            assert following.stdout.readline() != b""
            following.stdout.close()  # as `| head -1` does; nothing more comes to the topic
            assert following.wait(60) == ExitCode.OK
            assert following.stderr.read() == b""
        finally:
            following.kill()


@pytest.mark.usefixtures("topics")
def test_control_characters_never_reach_the_terminal(headrace: Headrace) -> None:
    headrace("event", "publish", "orders", "--data", '"\\u001b[31mred"', "--key", "\x1b[2J")
    answer = headrace("event", "tail", "orders", "--from", "start", "--no-follow")
    assert "\x1b" not in answer.out


# --- match ------------------------------------------------------------------------------------------------------------


def match(headrace: Headrace, app: Path, *arguments: str) -> tuple[Answer, dict[str, str]]:
    answer = headrace("event", "match", "orders", "--app", app, "-o", "json", *arguments)
    (row,) = answer.json
    return answer, row


@pytest.mark.parametrize(
    ("arguments", "clause", "reason"),
    [
        (["--type", "order.placed", "--source", "web", "--data", '{"id":"A","total":20}'], "matches", ""),
        (["--type", "order.paid", "--source", "web", "--data", '{"id":"A","total":20}'], "type", "order.paid"),
        (["--type", "order.placed", "--source", "app", "--data", '{"id":"A","total":20}'], "attributes", "source"),
        (["--type", "order.placed", "--source", "web", "--data", '{"id":"A","total":5}'], "filter", "false"),
        (["--type", "order.placed", "--source", "web", "--data", '{"id":"A"}'], "filter", "KeyError"),
        (["--type", "order.placed", "--source", "web", "--data", '{"id":1,"total":20}'], "input", ""),
        (["--type", "order.placed", "--source", "web", "--data", '{"id":"","total":20}'], "key", "empty"),
    ],
    ids=["matches", "type", "attributes", "filter", "filter-raises", "input", "key"],
)
def test_match_names_the_clause_that_said_no(
    headrace: Headrace, app: Path, arguments: list[str], clause: str, reason: str
) -> None:
    answer, row = match(headrace, app, *arguments)
    assert (row["workflow"], row["clause"]) == ("default/fulfil", clause)
    assert reason in row["reason"]
    assert answer.code == (ExitCode.OK if clause == "matches" else ExitCode.NOT_FOUND)
    dead = clause in {"input", "key"} or "KeyError" in row["reason"]
    assert (row["stage"] is not None) == dead


def test_match_says_that_a_record_is_no_event(headrace: Headrace, app: Path) -> None:
    answer, row = match(headrace, app, "--data", "{", "--unchecked")
    assert (answer.code, row["clause"], row["stage"]) == (ExitCode.NOT_FOUND, "decode", "decode")


@pytest.mark.usefixtures("topics")
def test_match_of_a_record_that_is_there(headrace: Headrace, app: Path) -> None:
    headrace("event", "publish", "orders", "--data", '{"id":"A","total":1}', "--partition", "1")
    _, row = match(headrace, app, "--at", "1/0")
    assert row["clause"] == "type"
    assert headrace("event", "match", "orders", "--app", app, "--at", "1/7").code == ExitCode.NOT_FOUND
    assert headrace("event", "match", "orders", "--app", app, "--at", "7").code == ExitCode.USAGE


def test_a_broken_app_ends_with_7_and_no_traceback(headrace: Headrace, here: Path) -> None:
    (here / "broken.py").write_text("import nosuchmodule\n")
    answer = headrace("event", "match", "orders", "--data", "1", "--app", "broken.py")
    assert answer.code == ExitCode.INVALID
    assert "nosuchmodule" in answer.err
    assert "Traceback" not in answer.err
    assert headrace("workflow", "list", "--app", "nothing.py").code == ExitCode.INVALID


# --- topics -----------------------------------------------------------------------------------------------------------


def test_create_makes_what_an_app_needs_once(headrace: Headrace, app: Path) -> None:
    made = headrace("topic", "create", app, "-o", "name")
    assert set(made.lines) == {
        *("orders", "orders.done", "orders.dlq"),
        *("headrace.runs", "headrace.audit", "headrace.dlq"),
    }
    again = headrace("topic", "create", app, "-o", "name")
    assert (again.code, again.out) == (0, "")
    assert {row["topic"] for row in headrace("topic", "list", "-o", "json").json} == set(made.lines)


@pytest.mark.usefixtures("topics")
def test_check_says_all_that_is_wrong(headrace: Headrace, app: Path) -> None:
    fine = headrace("topic", "check", app)
    assert (fine.code, fine.out) == (0, "")
    answer = headrace("topic", "check", app, "--set", "log.partitions=9", "--set", "log.replication=2", "-o", "json")
    assert answer.code == ExitCode.INVALID
    assert {row["code"] for row in answer.json} == {"HR1203", "HR1204"}
    other = headrace("topic", "check", app, "--app-name", "other", "--log-path", ".headrace/headrace.sqlite")
    assert other.code == ExitCode.INVALID
    assert "other.runs" in other.out


@pytest.mark.usefixtures("topics")
def test_lag_is_the_whole_topic_before_the_first_start(headrace: Headrace, app: Path) -> None:
    for number in range(3):
        headrace("event", "publish", "orders", "--data", str(number), "--partition", "2")
    rows = headrace("topic", "lag", app, "-o", "json").json
    lag = {row["partition"]: row["lag"] for row in rows if row["topic"] == "orders"}
    assert lag == {number: 3 if number == 2 else 0 for number in range(8)}
    assert {row["topic"] for row in headrace("topic", "lag", "-o", "json").json} == {"headrace.runs"}


# --- workflows, init --------------------------------------------------------------------------------------------------


def test_workflows_of_an_app(headrace: Headrace, app: Path) -> None:
    (row,) = headrace("workflow", "list", "--app", app, "-o", "json").json
    assert (row["workflow"], row["on_conflict"], row["emits"]) == ("fulfil", "queue", ["orders.done"])
    assert row["triggers"][0]["attributes"] == {"source": "web"}
    assert "fulfil" in headrace("workflow", "get", "fulfil", "--app", app).out


def test_init_writes_an_app_that_loads_and_never_overwrites(headrace: Headrace, here: Path) -> None:
    answer = headrace("init", "my app")
    assert answer.lines == ["my app/app.py", "my app/headrace.toml", "my app/README.md"]
    shown = headrace("config", "show", "--config", "my app/headrace.toml", "-o", "json").json
    assert {"key": "app.name", "value": "my-app"} in shown
    (workflow,) = headrace("workflow", "list", "--app", "my app", "-o", "json").json
    assert workflow["workflow"] == "greet"
    (here / "my app" / "app.py").write_text("mine")
    again = headrace("init", "my app")
    assert again.code == ExitCode.CONFLICT
    assert (here / "my app" / "app.py").read_text() == "mine"
    (here / "file").touch()
    assert headrace("init", "file").code == ExitCode.CONFLICT


# --- config, doctor ---------------------------------------------------------------------------------------------------


def test_config_path_and_show(headrace: Headrace, here: Path) -> None:
    assert headrace("config", "path").out == ""
    (here / "headrace.toml").write_text("[app]\nname = 'shop'\n")
    assert headrace("config", "path").lines == [str(here / "headrace.toml")]
    rows = headrace("config", "show", "--sources", "--set", "kafka.sasl_password=s3cret", "-o", "json").json
    by_key = {row["key"]: row for row in rows}
    assert by_key["app.name"] == {"key": "app.name", "value": "shop", "source": str(here / "headrace.toml")}
    assert by_key["kafka.sasl_password"]["value"] == "********"
    assert "source" not in headrace("config", "show", "-o", "json").json[0]


def test_doctor_finds_nothing_wrong_on_a_fresh_machine(headrace: Headrace, app: Path) -> None:
    answer = headrace("doctor", app, "--metrics-port", "0", "-o", "json")
    assert answer.code == 0
    states = {row["check"]: row["state"] for row in answer.json}
    assert states == dict.fromkeys(
        ("versions", "kafka client", "settings", "app", "metrics port", "embedded log", "history"), "ok"
    )


@pytest.mark.usefixtures("topics")
def test_doctor_names_each_fault_with_its_fix(headrace: Headrace, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    answer = headrace("doctor", app, "--metrics-port", "0", "--set", "log.partitions=9", "-o", "json")
    bad = {row["check"]: row for row in answer.json if row["state"] == "fail"}
    assert set(bad) == {"traces", "topics"}
    assert bad["topics"]["code"] == "HR1203"
    assert all(row["fix"] for row in bad.values())
    assert answer.code == ExitCode.ERROR
    unknown = headrace("doctor", "--set", "app.nmae=x", "--set", "wroker.processes=1", "-o", "json")
    assert unknown.code == ExitCode.INVALID
    assert [row["code"] for row in unknown.json if row["check"] == "settings"] == ["HR1001", "HR1001"]


def test_doctor_says_that_no_broker_answers(headrace: Headrace) -> None:
    answer = headrace("doctor", "--bootstrap-servers", "127.0.0.1:1", "--metrics-port", "0", "-o", "json")
    assert answer.code == ExitCode.UNREACHABLE
    (row,) = [row for row in answer.json if row["check"] == "broker"]
    assert row["state"] == "fail"
    assert row["fix"]
    assert headrace("run", "list", "--bootstrap-servers", "127.0.0.1:1").code == ExitCode.UNREACHABLE
