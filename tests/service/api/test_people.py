"""What people do over HTTP: decide, hasten what starts by the clock, send again what could not be dealt with."""

import itertools

import pytest

from tests.service.api.client import Client
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually_now

_numbers = itertools.count()


def asking(api: Client) -> str:
    """The id of a new approval."""
    run = api.start("asking", {"id": f"P-{next(_numbers)}"}).json["id"]
    return f"{run}-1-approval"


async def pending(api: Client) -> str:
    approval = asking(api)
    await eventually_now(
        lambda: approval in [each["id"] for each in api.get("/api/v1/approvals").json["items"]], approval
    )
    return approval


async def test_an_approval_is_listed_and_given_once(api: Client) -> None:
    approval = await pending(api)
    assert api.get(f"/api/v1/approvals/{approval}").json["status"] == "pending"
    path = f"/api/v1/approvals/{approval}/approve"
    outsider = api.post(path, {"by": "eve"})
    assert (outsider.status, outsider.code) == (403, "HR4108")
    given = api.post(path, {"by": "ann", "note": "fine", "roles": ["finance"]})
    assert (given.status, given.json["status"], given.json["by"]) == (200, "approved", "ann")
    again = api.post(f"/api/v1/approvals/{approval}/reject", {"roles": ["finance"]})
    assert (again.status, again.code) == (409, "HR4107")
    run = given.json["run"]
    await eventually_now(lambda: api.get(f"/api/v1/runs/{run}").json["result"] == "approved by ann", "the run's end")
    assert approval not in [each["id"] for each in api.get("/api/v1/approvals").json["items"]]
    assert approval in [each["id"] for each in api.get("/api/v1/approvals?status=approved&role=finance").json["items"]]


async def test_approvals_come_in_pages(api: Client) -> None:
    wanted = {await pending(api) for _ in range(3)}
    found: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/api/v1/approvals?limit=1{cursor}").json
        found += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert wanted <= set(found)
    assert len(found) == len(set(found))


async def test_a_schedule_is_paused_resumed_and_started_by_hand(api: Client) -> None:
    await eventually_now(lambda: api.get("/api/v1/schedules").json["items"], "the schedule")
    [one] = api.get("/api/v1/schedules").json["items"]
    assert (one["workflow"], one["every_ms"], one["status"]) == ("hourly", 3_600_000, "active")
    workflow = api.get(f"/api/v1/workflows/{one['namespace']}/{one['workflow']}").json
    assert "schedule" in [each["kind"] for each in workflow["triggers"]]
    path = f"/api/v1/schedules/{one['id']}"
    assert api.get("/api/v1/schedules/hourly").json["id"] == one["id"]
    slots = api.get(f"{path}/next?count=3").json["items"]
    assert slots == sorted(slots)
    assert len(slots) == 3
    run = api.post(f"{path}/trigger").json["run"]
    await eventually_now(lambda: api.get(f"/api/v1/runs/{run}").json["status"] == "succeeded", "its end")
    assert api.post(f"{path}/pause").json["status"] == "paused"
    again = api.post(f"{path}/pause")
    assert (again.status, again.code) == (409, "HR4122")
    assert api.post(f"{path}/resume").json["status"] == "active"
    unknown = api.post("/api/v1/schedules/nothing/pause")
    assert (unknown.status, unknown.code) == (404, "HR4121")


async def test_dead_letters_are_redriven_once_and_resolved(api: Client, place: Station) -> None:
    topic = place.topic("in")
    for number in range(3):
        event = {"specversion": "1.0", "id": f"D-{number}", "source": "/s", "type": "order", "data": {"id": number}}
        assert (
            api.post(f"/api/v1/events?topic={topic}", event, Content_Type="application/cloudevents+json").status == 202
        )
    listed = f"/api/v1/dead-letters?topic={topic}"
    await eventually_now(lambda: len(api.get(listed).json["items"]) == 3, "three dead letters")
    first = api.get(f"{listed}&limit=2").json
    second = api.get(f"{listed}&limit=2&cursor={first['next']}").json
    letters = [*first["items"], *second["items"]]
    assert len({each["id"] for each in letters}) == 3
    assert second["next"] is None
    one = letters[0]
    shown = api.get(f"/api/v1/dead-letters/{one['topic']}/{one['partition']}/{one['offset']}").json
    assert shown["value"] is not None
    assert api.get("/api/v1/dead-letters/stats").json["items"][0]["open"] >= 3
    assert api.post("/api/v1/dead-letters/redrive", {"ids": [one["id"]]}).json["redriven"] == 1
    twice = api.post("/api/v1/dead-letters/redrive", {"ids": [one["id"]]})
    assert (twice.status, twice.code) == (409, "HR3302")
    await eventually_now(lambda: len(api.get(listed).json["items"]) == 3, "it has failed again")
    done = api.post("/api/v1/dead-letters/resolve", {"filter": {"topic": topic}, "note": "seen"}).json
    assert done["resolved"] >= 3
    assert api.get(listed).json["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "approvals?status=maybe", None, 400, "HR6007"),
        ("GET", "approvals?cursor=x", None, 400, "HR6008"),
        ("GET", "approvals/nothing", None, 404, "HR4106"),
        ("POST", "approvals/nothing/approve", {"who": "me"}, 400, "HR6005"),
        ("GET", "schedules/nothing/next", None, 404, "HR4121"),
        ("GET", "schedules/nothing/next?count=0", None, 400, "HR6007"),
        ("GET", "schedules/nothing/next?count=" + "9" * 5_000, None, 400, "HR6007"),
        ("GET", "schedules/nothing", None, 404, "HR4121"),
        ("GET", "dead-letters?stage=late", None, 400, "HR6007"),
        ("GET", "dead-letters?state=lost", None, 400, "HR6007"),
        ("GET", "dead-letters/x/0/0", None, 404, "HR3301"),
        ("GET", "dead-letters/x/y/z", None, 404, "HR3301"),
        ("GET", "dead-letters/x/0/" + "9" * 5_000, None, 404, "HR3301"),
        ("POST", "dead-letters/redrive", {}, 400, "HR6005"),
        ("POST", "dead-letters/redrive", {"ids": ["a"], "filter": {}}, 400, "HR6005"),
        ("POST", "dead-letters/resolve", {"ids": ["nothing"]}, 404, "HR3301"),
    ],
)
def test_what_cannot_be_is_said(
    api: Client, method: str, path: str, body: dict[str, object] | None, status: int, code: str
) -> None:
    reply = api.get(f"/api/v1/{path}") if method == "GET" else api.post(f"/api/v1/{path}", body)
    assert (reply.status, reply.code) == (status, code)
