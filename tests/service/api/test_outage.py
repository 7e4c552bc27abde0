"""The broker stops answering while people ask: each request has its answer in time, nothing is done twice, and all goes on by itself."""

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.kafka_broker.broker import KafkaBroker
from tests.service.api.client import Client, Reply
from tests.service.api.conftest import APP, ON
from tests.service.api.test_stream import stream
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.waiting import eventually_now

WITHIN = "1500ms"  # api.request_timeout
EVENT = {"specversion": "1.0", "id": "O-1", "source": "/t", "type": "order", "data": {"id": "O-1"}}


@contextmanager
def silent(broker: KafkaBroker) -> Iterator[None]:
    """Connections stay open, and nothing is answered."""
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


async def all_of(*asking: Callable[[], Reply]) -> list[Reply]:
    """At once, each in a thread of its own."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(asking)) as threads:
        return await asyncio.gather(*(loop.run_in_executor(threads, ask) for ask in asking))


async def test_a_broker_that_does_not_answer_loses_and_doubles_nothing(
    kafka: KafkaBroker, station: MakeStation, tmp_path: Path
) -> None:
    settings = {"api__port": 0, "api__request_timeout": WITHIN, "history__url": f"sqlite:///{tmp_path}/history.sqlite"}
    place = station(Backend("kafka", kafka.bootstrap_servers), APP, **settings)
    service = await place.spawn(env=ON).ready()
    api = Client(service.api_url)
    asking = api.start("asking", {"id": "O-2"}).json["id"]
    await eventually_now(lambda: api.get("/api/v1/approvals").json["items"], "the approval")
    [approval] = api.get("/api/v1/approvals").json["items"]
    await eventually_now(lambda: api.get("/api/v1/runs").json["items"], "the run in the history")

    def start(key: str, **headers: str) -> Callable[[], Reply]:
        body = {"workflow": "free", "input": key, "key": key}
        return lambda: api.post("/api/v1/runs", body, Idempotency_Key=key, **headers)

    def publish() -> Reply:
        return api.post("/api/v1/events", EVENT, Content_Type="application/cloudevents+json")

    def decide() -> Reply:
        return api.post(f"/api/v1/approvals/{approval['id']}/approve", {"by": "ann", "roles": ["finance"]})

    changing = (start("K-1"), start("K-2", Prefer="wait=60"), publish, decide)
    reading = [
        lambda path=path: api.get(f"/api/v1/{path}") for path in ("approvals", "schedules", "dead-letters", "topics")
    ]
    with stream(api) as live:
        assert live.next()["event"] == "reset", "from here on everything is told"
        with silent(kafka):
            answers = await all_of(*changing, *reading)
            assert api.get("/api/v1/runs").json["items"], "the history answers without the broker"
        for answer in answers:
            assert answer.status in {503, 504}, answer.body
            assert int(answer.headers["Retry-After"]) > 0
        runs: list[str] = []
        for ask in changing[:2]:
            done = await eventually_now(lambda ask=ask: good(ask()), "the same start again")
            runs.append(done.json["id"])
        finished: set[str] = set()
        while not finished.issuperset(runs):
            event = live.next()
            if (
                event["event"] == "reset"
            ):  # the log was away for so long that some may not have been told: they are listed
                break
            finished |= {json.loads(event["data"])["id"]} if event["event"] == "run.finished" else set()
    decided = await eventually_now(lambda: settled(decide()), "the same decision again")
    assert decided.status == 200 or "approved by ann" in decided.json["detail"]
    await eventually_now(lambda: good(publish()), "the same event again")
    await eventually_now(lambda: api.get(f"/api/v1/runs/{asking}").json["status"] == "succeeded", "the approved run")
    for key, run in zip(("K-1", "K-2"), runs, strict=True):
        await eventually_now(lambda run=run: api.get(f"/api/v1/runs/{run}").json["status"] == "succeeded", run)
        assert [each["id"] for each in api.get(f"/api/v1/runs?key={key}").json["items"]] == [run]
    await eventually_now(lambda: api.get("/api/v1/runs?key=O-1").json["items"], "the event's run")
    for path in ("approvals", "schedules", "dead-letters", "topics"):
        await eventually_now(lambda path=path: good(api.get(f"/api/v1/{path}")), path)
    assert service.stop() == 0
    assert "Traceback" not in service.stderr


def good(reply: Reply) -> Reply | None:
    return reply if reply.status < http.client.BAD_REQUEST else None


def settled(reply: Reply) -> Reply | None:
    return reply if reply.status in {200, 409} else None


async def test_while_the_history_is_away_single_runs_come_from_the_log(station: MakeStation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = f"sqlite:///{tmp_path}/file/history.sqlite"  # below a file: it cannot be had, by nobody
    place = station(Backend("embedded"), APP, api__port=0, history__url=nowhere)
    service = await place.spawn(env=ON).ready()
    api = Client(service.api_url)
    run = api.start("free", "n", Prefer="wait=60").json["id"]
    assert api.get(f"/api/v1/runs/{run}").json["status"] == "succeeded"
    assert api.get(f"/api/v1/runs/{run}/history").json["items"]
    listed = api.get("/api/v1/runs")
    assert (listed.status, listed.code, listed.headers["Retry-After"]) == (503, "HR5201", "1")
    assert service.stop() == 0
