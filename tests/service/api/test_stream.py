"""Live updates: every change once and in order, also after a break; what cannot be known is said."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.service.api.live_runs import Change
from headrace.service.api.live_stream import KEPT, WAITING, LiveStream
from headrace.service.run_view.summary import RunSummary
from tests.service.api.client import PATIENCE_S, Client
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually_now

Event = dict[str, str]


class Stream:
    """An open stream of a real service."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer

    def next(self) -> Event:
        """The next event; comments are passed over."""
        found: Event = {}
        while True:
            line = self._answer.readline().decode().rstrip("\r\n")
            if line.startswith(":"):
                continue
            if not line and found:
                return found
            name, colon, value = line.partition(": ")
            if colon:
                found[name] = value

    def until(self, name: str, run: str) -> Event:
        while True:
            event = self.next()
            if event["event"] == name and json.loads(event["data"])["id"] == run:
                return event


@contextmanager
def stream(api: Client, last_id: str = "") -> Iterator[Stream]:
    connection = http.client.HTTPConnection(api.host, api.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/api/v1/stream", headers={"Last-Event-ID": last_id} if last_id else {})
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        opened = Stream(answer)
        assert opened.next()["event"] == "open"
        yield opened
    finally:
        connection.close()


@pytest.fixture(scope="module", autouse=True)
def followed(api: Client) -> Iterator[None]:
    """Somebody looks all the time: every partition is followed, whichever test comes first."""
    with stream(api) as live:
        assert live.next()["event"] == "reset", "what is there is listed, from here on everything is told"
        yield


async def test_a_run_is_seen_to_start_and_to_finish(api: Client) -> None:
    with stream(api) as live:
        run = api.start("fulfil", {"id": "S-1"}).json["id"]
        live.until("run.started", run)
        finished = json.loads(live.until("run.finished", run)["data"])
    await eventually_now(lambda: api.get(f"/api/v1/runs/{run}").json["status"] == "succeeded", "its end")
    shown = api.get(f"/api/v1/runs/{run}").json
    assert finished == {name: shown[name] for name in finished}


def test_a_client_that_comes_back_misses_nothing(api: Client) -> None:
    with stream(api) as live:
        first = api.start("fulfil", {"id": "S-2"}).json["id"]
        last = live.until("run.finished", first)["id"]
    missed = api.start("fulfil", {"id": "S-3"}).json["id"]
    with stream(api, last) as live:
        live.until("run.finished", missed)
    with stream(api, "never-1") as live:
        assert live.next()["event"] == "reset"


def summary(number: int) -> RunSummary:
    return RunSummary(
        id=f"0.{number:020x}",
        workflow="w",
        namespace="default",
        version="1",
        status="running",
        key=None,
        trigger="http",
        source=None,
        started_at="2026-11-22T00:00:00.000Z",
        ended_at=None,
        duration_ms=None,
        attempts=0,
        retries=0,
        error="",
        message="",
        failed_step="",
        parked="",
    )


async def test_a_client_that_does_not_read_is_cut_and_nobody_else() -> None:
    live = LiveStream()
    with live.client(None) as slow, live.client(None) as quick:
        for number in range(WAITING + 1):
            live.tell(Change.STARTED, summary(number))
            assert await quick.next() is not None
        assert await slow.next() is None
        live.tell(Change.FINISHED, summary(0))
        event = await quick.next()
        assert event is not None
        assert event.name == "run.finished"


@pytest.mark.parametrize(("away", "names"), [(3, ["run.started"] * 3), (WAITING, ["reset"]), (KEPT + 1, ["reset"])])
async def test_what_was_missed_is_sent_or_said_to_be_lost(away: int, names: list[str]) -> None:
    live = LiveStream()
    with live.client(None) as client:
        live.tell(Change.STARTED, summary(0))
        seen = await client.next()
    assert seen is not None
    for number in range(away):
        live.tell(Change.STARTED, summary(number))
    with live.client(seen.id) as client:
        found = [event.name for event in [await client.next() for _ in names] if event is not None]
        assert found == names
    live.reset()
    with live.client(seen.id) as client:
        event = await client.next()
        assert event is not None
        assert event.name == "reset"


async def test_clients_that_are_gone_at_once_are_no_failure_of_ours(api: Client, place: Station) -> None:
    for _ in range(30):
        with socket.create_connection((api.host, api.port), timeout=PATIENCE_S) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
            peer.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await eventually_now(lambda: "headrace_sse_clients 1.0" in place.now.scrape(), "only the one that stays")
    assert api.get("/api/v1/about").status == 200
    assert "http.failed" not in place.now.stderr
