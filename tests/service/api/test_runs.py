"""Runs over HTTP, by a real service: started, waited for, listed, looked at, commanded."""

import itertools
import json
from pathlib import Path

import pytest

from tests.service.api.client import Client, Reply
from tests.service.api.conftest import APP, ON
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually_now

_numbers = itertools.count()


def new_id() -> str:
    return f"A-{next(_numbers)}"


def status_of(api: Client, run: str) -> str:
    return api.get(f"/api/v1/runs/{run}").json["status"]


def started(reply: Reply) -> str:
    assert reply.status == 201, reply.body
    return reply.json["id"]


async def until_status(api: Client, run: str, status: str) -> None:
    """Lists and details come from the history, which follows the log."""
    await eventually_now(lambda: status_of(api, run) == status, f"{run} {status}")


async def test_a_start_that_waits_answers_with_the_result(api: Client) -> None:
    order = new_id()
    reply = api.start("fulfil", {"id": order}, Prefer="wait=60")
    assert reply.status == 200
    assert reply.headers["Preference-Applied"] == "wait=60"
    run = reply.json
    assert (run["status"], run["result"], run["key"]) == ("succeeded", {"charged": order}, order)
    await until_status(api, run["id"], "succeeded")
    shown = api.get(reply.headers["Location"]).json
    assert (shown["id"], shown["trigger"], shown["result"]) == (run["id"], "http", {"charged": order})


def test_a_start_is_there_when_it_is_answered(api: Client) -> None:
    run = started(api.start("free", "a note"))
    assert api.get(f"/api/v1/runs/{run}").json["version"] == "2"


def test_a_failed_run_is_a_good_answer(api: Client) -> None:
    reply = api.start("fulfil", {"id": new_id(), "bad": True}, Prefer="wait=60")
    assert (reply.status, reply.json["status"], reply.json["error"]) == (200, "failed", "TaskFailed")


def test_a_wait_that_is_over_before_the_run_says_how_it_stands(api: Client) -> None:
    reply = api.start("fulfil", {"id": new_id(), "slow": True}, Prefer="wait=1")
    assert (reply.status, reply.json["status"], reply.json["result"]) == (201, "running", None)


async def test_an_idempotency_key_starts_one_run(api: Client) -> None:
    order = {"id": new_id(), "slow": True}
    first, second, waited = (
        api.start("fulfil", order, Idempotency_Key="once", **more) for more in ({}, {}, {"Prefer": "wait=1"})
    )
    assert first.json["id"] == second.json["id"] == waited.json["id"]
    assert waited.json["status"] == "running"
    await eventually_now(lambda: api.get(f"/api/v1/runs?key={order['id']}").json["items"], "the run in the list")
    assert len(api.get(f"/api/v1/runs?key={order['id']}").json["items"]) == 1
    other = api.start("fulfil", {"id": new_id(), "slow": True}, Idempotency_Key="once")
    assert other.json["id"] != first.json["id"], "of another run key"


def test_a_second_request_after_the_end_has_the_first_ones_result(api: Client) -> None:
    order = {"id": new_id()}
    first = api.start("fulfil", order, Idempotency_Key="twice", Prefer="wait=60").json
    again = api.start("fulfil", order, Idempotency_Key="twice", Prefer="wait=60").json
    assert again == first


async def test_its_result_is_there_before_the_history_has_it(station: MakeStation, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.sqlite'}"
    service = await station(Backend("embedded"), APP, api__port=0, history__url=url).spawn(env=ON).ready()
    api = Client(service.api_url)
    order = {"id": new_id()}
    run = started(api.start("asking", order, Idempotency_Key="late"))
    await eventually_now(
        lambda: api.get(f"/api/v1/runs?key={order['id']}").json["items"], "the open run in the history"
    )
    assert api.post(f"/api/v1/approvals/{run}-1-approval/approve", {"roles": ["finance"], "by": "ann"}).status == 200
    first, again = (api.start("asking", order, Idempotency_Key="late", Prefer="wait=60") for _ in range(2))
    assert (first.status, first.json["id"], first.json["result"]) == (200, run, "approved by ann")
    assert (again.status, again.json) == (200, first.json)
    assert service.stop() == 0


def test_a_held_key_is_a_conflict_or_is_joined_as_the_workflow_says(api: Client) -> None:
    order = {"id": new_id()}
    holder = started(api.start("only", order))
    refused = api.start("only", order)
    assert (refused.status, refused.code) == (409, "HR6019")
    assert holder in refused.json["detail"]
    first = started(api.start("together", order))
    joined = api.start("together", order)
    assert (joined.status, joined.json["id"], joined.json["joined"]) == (200, first, True)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"workflow":', 400, "HR6005"),
        (b"\xff", 400, "HR6005"),
        (b'{"workflow": 5}', 400, "HR6005"),
        (b'{"workflow": "fulfil", "inputs": {}}', 400, "HR6005"),
        (b"[" * 100 + b"]" * 100, 400, "HR6005"),
        (b'{"workflow": "free", "input": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "HR6005"),
        (b'{"workflow": "free", "input": [' + b"{}," * 100_000 + b"1]}", 400, "HR6005"),
        (b'{"workflow": "free", "input": "\xff"}', 400, "HR6005"),
        (b'{"workflow": "free", "input": "' + b"a" * (901 << 10) + b'"}', 413, "HR6004"),
        (b'{"workflow": "free", "input": [' + b"1," * (1 << 20) + b"1]}", 413, "HR6004"),
        (b'{"workflow": "nothing"}', 404, "HR6016"),
        (b'{"workflow": "fulfil", "namespace": "other"}', 404, "HR6016"),
        (b'{"workflow": "fulfil", "input": {"id": 5}}', 422, "HR6017"),
        (b'{"workflow": "fulfil", "input": {"id": ""}}', 422, "HR6018"),
        (b'{"workflow": "fulfil", "input": {"id": "A"}, "key": "B"}', 422, "HR6018"),
        (b'{"workflow": "free", "input": "n", "key": ""}', 422, "HR6018"),
    ],
)
def test_a_start_that_cannot_be_says_why(api: Client, body: bytes, status: int, code: str) -> None:
    reply = api.ask("POST", "/api/v1/runs", body, {"Content-Type": "application/json"})
    assert (reply.status, reply.code) == (status, code)


def test_a_body_that_is_not_said_to_be_json_is_not_read(api: Client) -> None:
    reply = api.ask("POST", "/api/v1/runs", b'{"workflow": "free"}', {"Content-Type": "text/plain"})
    assert (reply.status, reply.code) == (415, "HR6006")
    bad_key = api.start("free", "n", Idempotency_Key="with space")
    assert (bad_key.status, bad_key.code) == (400, "HR6007")


async def test_lists_come_in_pages_and_by_filter(api: Client) -> None:
    key = new_id()
    runs = [started(api.post("/api/v1/runs", {"workflow": "free", "input": "n", "key": key})) for _ in range(5)]
    await eventually_now(lambda: len(api.get(f"/api/v1/runs?key={key}").json["items"]) == 5, "all of them")
    found: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/api/v1/runs?key={key}&limit=2{cursor}").json
        assert len(page["items"]) <= 2
        found += [run["id"] for run in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(found) == sorted(runs)
    assert api.get(f"/api/v1/runs?key={key}&workflow=fulfil").json["items"] == []
    assert len(api.get(f"/api/v1/runs?key={key}&workflow=default/free&since=1h").json["items"]) == 5
    assert api.get(f"/api/v1/runs?key={key}&since=2999-01-01T00:00:00Z").json["items"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "HR6007"),
        ("limit=201", "HR6007"),
        ("limit=x", "HR6007"),
        ("limit=" + "9" * 5_000, "HR6007"),
        ("limit=%D9%A1", "HR6007"),
        ("status=running,lost", "HR6007"),
        ("since=yesterday", "HR6007"),
        ("since=2026-13-01T00:00:00Z", "HR6007"),
        ("cursor=WzFd", "HR6008"),
        ("cursor=!", "HR6008"),
        ("cursor=" + "A" * 500, "HR6008"),
        ("cursor=WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwLCJ4Il0", "HR6008"),
        ("cursor=WzFlOTk5LCJ4Il0", "HR6008"),
    ],
)
def test_parameters_are_judged(api: Client, query: str, code: str) -> None:
    reply = api.get(f"/api/v1/runs?{query}")
    assert (reply.status, reply.code) == (400, code)


async def test_a_run_is_shown_as_the_command_line_shows_it(api: Client, place: Station) -> None:
    run = api.start("fulfil", {"id": new_id()}, Prefer="wait=60").json["id"]
    await until_status(api, run, "succeeded")
    code, out, err = place.command("run", "get", run, "-o", "json")
    assert code == 0, err
    assert api.get(f"/api/v1/runs/{run}").json == json.loads(out)
    code, out, err = place.command("run", "history", run, "-o", "json")
    assert api.get(f"/api/v1/runs/{run}/history").json["items"] == json.loads(out)
    first = api.get(f"/api/v1/runs/{run}/history?limit=1").json
    second = api.get(f"/api/v1/runs/{run}/history?limit=1&cursor={first['next']}").json
    assert [*first["items"], *second["items"]] == json.loads(out)[:2]


@pytest.mark.parametrize("run", ["0." + "a" * 20, "99." + "a" * 20, "nothing", "%2e%2e", "a%2Fb"])
def test_unknown_runs_are_not_found(api: Client, run: str) -> None:
    for path in (f"/api/v1/runs/{run}", f"/api/v1/runs/{run}/history"):
        reply = api.get(path)
        assert (reply.status, reply.code) == (404, "HR4101")
    reply = api.post(f"/api/v1/runs/{run}/cancel")
    assert (reply.status, reply.code) == (404, "HR4101")


async def test_a_run_is_cancelled_once(api: Client) -> None:
    run = started(api.start("fulfil", {"id": new_id(), "slow": True}))
    done = api.post(f"/api/v1/runs/{run}/cancel", {"reason": "changed my mind"})
    assert (done.status, done.json) == (200, {"id": run, "command": "cancel", "status": "cancelled"})
    await until_status(api, run, "cancelled")
    again = api.post(f"/api/v1/runs/{run}/cancel")
    assert (again.status, again.code) == (409, "HR4102")
    assert "changed my mind" in api.get(f"/api/v1/runs/{run}/history").body.decode()


def test_only_a_parked_run_is_resumed(api: Client) -> None:
    run = started(api.start("fulfil", {"id": new_id(), "slow": True}))
    reply = api.post(f"/api/v1/runs/{run}/resume")
    assert (reply.status, reply.code) == (409, "HR4102")


async def test_a_failed_run_is_retried_or_dismissed(api: Client) -> None:
    run = api.start("fulfil", {"id": new_id(), "bad": True}, Prefer="wait=60").json["id"]
    unknown = api.post(f"/api/v1/runs/{run}/retry", {"from": "/9/nothing"})
    assert (unknown.status, unknown.code) == (404, "HR4105")
    retried = api.post(f"/api/v1/runs/{run}/retry")
    assert (retried.status, retried.json["retry_of"]) == (201, run)
    assert api.get(f"/api/v1/runs/{retried.json['id']}").json["retry_of"] == run
    await until_status(api, retried.json["id"], "failed")
    assert api.post(f"/api/v1/runs/{run}/dismiss").status == 200
    gone = api.post(f"/api/v1/runs/{run}/dismiss")
    assert (gone.status, gone.code) == (409, "HR4102")
