"""CloudEvents over HTTP, in each mode, and what becomes of those that are none."""

import json

import pytest

from tests.service.api.client import Client, Reply
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually_now

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
JSON = {"Content-Type": "application/json"}


def event(name: str, **more: object) -> dict[str, object]:
    return {"specversion": "1.0", "id": name, "source": "/shop", "type": "order", "data": {"id": name}, **more}


def sent(api: Client, value: object, headers: dict[str, str], query: str = "") -> Reply:
    return api.ask("POST", f"/api/v1/events{query}", json.dumps(value).encode(), headers)


def runs_of(api: Client, key: str) -> list[str]:
    return [run["status"] for run in api.get(f"/api/v1/runs?key={key}").json["items"]]


@pytest.mark.parametrize("mode", ["structured", "binary", "batched"])
async def test_an_event_of_each_mode_starts_its_run(api: Client, place: Station, mode: str) -> None:
    name = f"E-{mode}"
    match mode:
        case "structured":
            reply = sent(api, event(name), STRUCTURED)
        case "binary":
            attributes = {"ce-specversion": "1.0", "ce-id": name, "ce-source": "/shop", "ce-type": "order"}
            reply = sent(api, {"id": name}, {**JSON, **attributes, "ce-subject": "Euro%20%E2%82%AC"})
        case _:
            reply = sent(api, [event(name)], BATCH)
    assert reply.status == 202
    [item] = reply.json["items"]
    assert (item["id"], item["topic"], item["error"]) == (name, place.topic("in"), None)
    await eventually_now(lambda: runs_of(api, name) == ["succeeded"], "the run")
    [run] = api.get(f"/api/v1/runs?key={name}").json["items"]
    assert run["source"] == f"{item['topic']}/{item['partition']}/{item['offset']}"
    if mode == "binary":
        async with place.view() as view:
            [record] = [each for each in await view.records("in") if ("ce_id", name.encode()) in each.headers]
        assert dict(record.headers)["ce_subject"].decode() == "Euro €"


def test_plain_json_goes_where_it_is_told(api: Client, place: Station) -> None:
    reply = sent(api, {"id": "P"}, JSON, f"?topic={place.topic('in')}&key=K")
    [item] = reply.json["items"]
    assert item["id"] == f"{item['partition']}-{item['offset']}"
    again = sent(api, {"id": "P"}, JSON, f"?topic={place.topic('in')}&key=K").json["items"][0]
    assert again["partition"] == item["partition"], "the same key"


def test_in_a_batch_each_event_stands_for_itself(api: Client) -> None:
    reply = sent(api, [event("B-1"), event("", id=""), event("B-3"), 5], BATCH)
    assert reply.status == 202
    assert [(item["id"], item["error"] and item["error"]["code"]) for item in reply.json["items"]] == [
        ("B-1", None),
        (None, "HR3011"),
        ("B-3", None),
        (None, "HR3017"),
    ]


@pytest.mark.parametrize(
    ("value", "headers", "status", "code"),
    [
        (event("X", id=""), STRUCTURED, 422, "HR3011"),
        (event("X", specversion="0.3"), STRUCTURED, 422, "HR3014"),
        ([event("X", id=""), event("Y", id="")], BATCH, 422, "HR3011"),
        ([], BATCH, 400, "HR6005"),
        ([1] * 10_001, BATCH, 400, "HR6005"),
        ([[]] * 100_001, STRUCTURED, 400, "HR6005"),
        ({}, BATCH, 400, "HR6005"),
        ({"id": "X"}, JSON, 422, "HR6020"),
        (event("X", type="unheard"), STRUCTURED, 422, "HR6020"),
        ({"id": "X"}, {"Content-Type": "image/png"}, 415, "HR6006"),
    ],
)
def test_what_is_no_event_for_us_is_refused(
    api: Client, value: object, headers: dict[str, str], status: int, code: str
) -> None:
    reply = sent(api, value, headers)
    assert (reply.status, reply.code) == (status, code)


@pytest.mark.parametrize("topic", ["runs", "audit", "dlq", "elsewhere"])
def test_only_source_topics_are_written_to(api: Client, place: Station, topic: str) -> None:
    reply = sent(api, event("T"), STRUCTURED, f"?topic={place.topic(topic)}")
    assert (reply.status, reply.code) == (422, "HR6020")
