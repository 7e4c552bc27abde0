"""The port: what is not for it, what is too much for it, how it opens and how it closes."""

import asyncio
import http.client
import json
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from headrace.service.api.guard import Guard
from headrace.service.api.problem import ApiError
from headrace.service.api.server import CONNECTIONS_MAX
from headrace.service.settings import ApiSettings
from headrace.topics.errors import SettingsError
from tests.service.api.client import DOCUMENT, PATIENCE_S, Client, Reply
from tests.service.api.conftest import APP, ON
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually_now


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api", 404, "HR6001"),
        ("GET", "/api/", 404, "HR6001"),
        ("GET", "/api/v1", 404, "HR6001"),
        ("GET", "/api/v1/nothing", 404, "HR6001"),
        ("GET", "/api/v1/runs/", 200, ""),
        ("GET", "/api/v1/runs/x/y/z", 404, "HR6001"),
        ("DELETE", "/api/v1/runs", 405, "HR6002"),
        ("OPTIONS", "/api/v1/runs", 405, "HR6002"),
        ("PUT", "/api/v1/runs/x", 405, "HR6002"),
        ("POST", "/", 405, "HR6002"),
        ("TRACE", "/api/v1/runs", 405, "HR6002"),
    ],
)
def test_every_path_and_method_has_its_answer(api: Client, method: str, path: str, status: int, code: str) -> None:
    reply = api.ask(method, path)
    assert (reply.status, reply.code if code else "") == (status, code)
    assert ("Allow" in reply.headers) == (status == 405)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_head_is_get_without_its_body(api: Client) -> None:
    got, head = api.get("/api/v1/about"), api.ask("HEAD", "/api/v1/about")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(got.body)))


def raw(api: Client, text: bytes) -> tuple[int, str]:
    """Status and problem code for bytes that no client would send."""
    with socket.create_connection((api.host, api.port), timeout=PATIENCE_S) as peer:
        peer.sendall(text)
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        return answer.status, json.loads(answer.read())["code"]


def test_what_is_not_http_is_said_to_be_so(api: Client) -> None:
    assert raw(api, b"HELLO\r\n\r\n") == (400, "HR6003")
    assert raw(api, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n") == (400, "HR6003")


def test_headers_are_bounded(api: Client) -> None:
    assert raw(api, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9_000 + b"\r\n\r\n") == (431, "HR6021")
    assert raw(api, b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") == (431, "HR6021")
    assert raw(api, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n") == (431, "HR6021")


def test_bodies_are_bounded_whether_they_say_their_length_or_not(api: Client) -> None:
    head = b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert raw(api, head + b"Content-Length: 99999999\r\n\r\n") == (413, "HR6004")
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with socket.create_connection((api.host, api.port), timeout=PATIENCE_S) as peer:
        peer.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            try:
                peer.sendall(chunk)
            except OSError:  # it has heard enough
                break
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert answer.status == 413
    large = api.start("free", "x" * 1_000_000)
    assert (large.status, large.code) == (413, "HR6004")


async def test_connections_are_bounded(api: Client) -> None:
    with ExitStack() as stack:

        def refused() -> bool:
            """With one connection more: a place that another test has held can come free between two."""
            stack.enter_context(socket.create_connection((api.host, api.port), timeout=PATIENCE_S))
            try:
                reply = api.get("/api/v1/about")
            except ConnectionError:  # who is slow to read is not waited for
                return False
            return reply.status == 503 and reply.code == "HR6009"

        for _ in range(CONNECTIONS_MAX):
            stack.enter_context(socket.create_connection((api.host, api.port), timeout=PATIENCE_S))
        await eventually_now(refused, "a refusal")
    await eventually_now(lambda: api.get("/api/v1/about").status == 200, "its places again")


def test_other_names_and_other_sites_are_refused(api: Client) -> None:
    rebound = api.get("/api/v1/about", Host="evil.example")
    assert (rebound.status, rebound.code) == (403, "HR6014")
    forged = api.post("/api/v1/runs", {"workflow": "free"}, Origin="https://evil.example")
    assert (forged.status, forged.code) == (403, "HR6015")
    forged = api.post("/api/v1/runs", {"workflow": "free"}, Sec_Fetch_Site="cross-site")
    assert (forged.status, forged.code) == (403, "HR6015")
    own = api.start("free", "from our own page", Origin=api.url, Sec_Fetch_Site="same-origin")
    assert own.status == 201


@pytest.mark.parametrize(
    ("settings", "host", "passes"),
    [
        (ApiSettings(), "localhost:8080", True),
        (ApiSettings(), "127.0.0.1", True),
        (ApiSettings(), "[::1]:9", True),
        (ApiSettings(), "localhost.evil.example", False),
        (ApiSettings(), "", False),
        (ApiSettings(allowed_hosts=("flows.example",)), "Flows.Example:443", True),
        (ApiSettings(allowed_hosts=("flows.example",)), "evil.example", False),
        (ApiSettings(host="10.0.0.1", allow_anonymous=True), "anything", True),
        (ApiSettings(host="10.0.0.1", auth="token", token=SecretStr("t")), "anything", True),
        (ApiSettings(host="10.0.0.1", auth="token", token=SecretStr("t"), allowed_hosts=("a",)), "b", False),
    ],
)
def test_which_hosts_are_answered_to(settings: ApiSettings, host: str, passes: bool) -> None:
    guard = Guard(settings)
    if passes:
        guard.check("GET", {"Host": host}, token_needed=False)
        return
    with pytest.raises(ApiError) as refused:
        guard.check("GET", {"Host": host}, token_needed=False)
    assert refused.value.code == "HR6014"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (ApiSettings(host="0.0.0.0"), "HR1307"),
        (ApiSettings(host="::"), "HR1307"),
        (ApiSettings(host="shop.example"), "HR1307"),
        (ApiSettings(auth="token"), "HR1308"),
        (ApiSettings(auth="token", token=SecretStr("")), "HR1308"),
    ],
)
def test_nobody_is_let_in_by_mistake(settings: ApiSettings, code: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Guard(settings)
    assert refused.value.code == code


async def test_a_token_is_asked_for_where_the_settings_say_so(station: MakeStation) -> None:
    place = station(Backend("embedded"), APP, api__port=0, api__auth="token", api__max_requests=1)
    service = await place.spawn(env={**ON, "HEADRACE_API__TOKEN": "open sesame"}).ready()
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic b3BlbiBzZXNhbWU="}):
        refused = Client(service.api_url, given).get("/api/v1/runs")
        assert (refused.status, refused.code, refused.headers["WWW-Authenticate"][:6]) == (401, "HR6013", "Bearer")
    owner = Client(service.api_url, {"Authorization": "Bearer open sesame"})
    assert owner.get("/api/v1/runs").status == 200
    assert Client(service.api_url).get("/").status == 200, "the page asks for the token"
    assert "open sesame" not in service.stderr
    await one_too_many(owner)
    assert service.stop() == 0


async def one_too_many(api: Client) -> None:
    """A request whose body does not come holds the only place; it is free again when its peer goes."""

    def crowded() -> Reply | None:
        with socket.create_connection((api.host, api.port), timeout=PATIENCE_S) as peer:
            head = "POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer open sesame\r\nContent-Length: 9\r\n\r\n"
            peer.sendall(head.encode())
            reply = api.get("/api/v1/approvals")
            assert api.get("/api/v1/about").status == 200, "what needs no log has room of its own"
            return reply if reply.status == 503 else None

    refused = await eventually_now(crowded, "no place left")
    assert (refused.code, refused.headers["Retry-After"]) == ("HR6009", "1")
    await eventually_now(lambda: api.get("/api/v1/approvals").status == 200, "the place again")


def test_a_taken_port_is_said_and_ends_the_start(api: Client, tmp_path: Path, station: MakeStation) -> None:
    second = station(Backend("embedded"), APP)
    taken = second.spawn(env=ON, api__port=api.port)
    assert taken.ended() == 7
    assert "HR1305" in taken.stderr
    assert str(api.port) in taken.stderr
    everybody = second.spawn(env=ON, api__port=0, api__host="0.0.0.0")
    assert everybody.ended() == 7
    assert "HR1307" in everybody.stderr


async def test_a_stop_lets_go_of_those_who_wait(station: MakeStation) -> None:
    place = station(Backend("embedded"), APP, api__port=0)
    service = await place.spawn(env=ON).ready()
    api = Client(service.api_url)
    run = api.start("only", {"id": "W"}).json["id"]
    loop = asyncio.get_running_loop()
    waiting = loop.run_in_executor(None, lambda: api.start("fulfil", {"id": "W", "slow": True}, Prefer="wait=60"))
    await eventually_now(lambda: len(api.get("/api/v1/runs?key=W").json["items"]) == 2, "the start that waits")
    service.terminate()
    answer = await waiting
    assert answer.status == 201
    assert answer.json["status"] in {"accepted", "running"}, "as far as this process had read on"
    assert service.ended() == 0
    again = await place.spawn(env=ON).ready()
    assert Client(again.api_url).get(f"/api/v1/runs/{run}").json["status"] == "running"
    assert again.stop() == 0


async def test_requests_are_counted_by_route(api: Client, place: Station) -> None:
    api.get("/api/v1/runs/0." + "a" * 20)
    api.get("/api/v1/" + "b" * 20)
    api.get("/runs/1.abc")
    wanted = [
        'headrace_http_requests_total{code="404",method="GET",route="/api/v1/runs/{run}"}',
        'headrace_http_requests_total{code="404",method="GET",route="(unknown)"}',
        'headrace_http_requests_total{code="200",method="GET",route="/{console}"}',
        'headrace_http_request_duration_seconds_count{code="404",method="GET",route="/api/v1/runs/{run}"}',
        "headrace_sse_clients 0.0",
    ]
    await eventually_now(lambda: all(line in place.now.scrape() for line in wanted), lambda: str(wanted))
    assert "a" * 20 not in place.now.scrape()


def test_the_console_is_served_and_nothing_else(api: Client) -> None:
    index = api.get("/")
    assert index.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in index.headers["Content-Security-Policy"]
    assert api.get("/runs/3.0123456789abcdef0123").body == index.body
    script = api.get("/console.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    kept = api.get("/console.js", If_None_Match=script.headers["ETag"])
    assert (kept.status, kept.body) == (304, b"")
    for path in ("/..%2f..%2fserver.py", "/%2e%2e/server.py", "/__init__.py", "/nothing.js", "/.git/config.txt"):
        assert api.get(path).status in {200, 404}
        assert b"import" not in api.get(path).body


async def test_a_base_path_is_cut_off_and_said_to_the_console(station: MakeStation) -> None:
    place = station(Backend("embedded"), APP, api__port=0, api__base_path="/flows/")
    service = await place.spawn(env=ON).ready()
    assert service.api_url.endswith("/flows")
    api = Client(service.api_url)
    assert api.get("/flows/api/v1/about").status == 200
    assert api.get("/api/v1/about").status == 200, "a proxy that cuts it off itself"
    assert b'<base href="/flows/">' in api.get("/flows/runs").body
    started = api.ask(
        "POST", "/flows/api/v1/runs", b'{"workflow":"free","input":"n"}', {"Content-Type": "application/json"}
    )
    assert started.headers["Location"].startswith("/flows/api/v1/runs/")
    assert service.stop() == 0


def test_the_document_is_served_as_it_is_made(api: Client) -> None:
    assert api.get("/api/openapi.json").json == DOCUMENT


def test_overviews_tell_of_the_app(api: Client, place: Station) -> None:
    about = api.get("/api/v1/about").json
    assert (about["app"], about["backend"]) == (place.name, "embedded")
    flows = {each["workflow"]: each for each in api.get("/api/v1/workflows").json["items"]}
    assert flows["fulfil"]["triggers"][0]["topic"] == place.topic("in")
    assert flows["only"]["on_conflict"] == "reject"
    one = api.get("/api/v1/workflows/default/fulfil").json
    assert [handler["name"] for handler in one["handlers"]] == ["charge"]
    assert api.get("/api/v1/workflows/default/none").code == "HR6016"
    topics = {row["topic"] for row in api.get("/api/v1/topics").json["items"]}
    assert topics == {place.topic("in"), f"{place.name}.runs"}
    stats = api.get("/api/v1/stats").json
    assert {row["topic"] for row in stats["lag"]} == {place.topic("in")}
    assert stats["stopped"] == []
