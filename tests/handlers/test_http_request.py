"""The built-in handler for HTTP, against a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web

from headrace.handlers.attempt import Attempt, enter_attempt, leave_attempt
from headrace.handlers.breaker import Breaker
from headrace.handlers.http_request import (
    HttpRedirectRefused,
    HttpRefused,
    HttpRequest,
    HttpRequestInvalid,
    HttpResponse,
    HttpTooLarge,
    HttpUnavailable,
    HttpUnreachable,
    close_session,
    http_handler,
    http_request,
    send,
)
from headrace.handlers.result import AttemptError, AttemptOk
from headrace.handlers.retry import Retry
from headrace.topics.errors import Cause
from tests.handlers.calls import Watched, call_of
from tests.handlers.http_server import Server, http_server

ANCHOR = "00-" + "a1" * 16 + "-" + "b2" * 8 + "-01"
ATTEMPT = Attempt(
    idempotency_key="key-7",
    number=1,
    run_id="3.abc",
    task="/1/pay",
    deadline_ms=1,
    anchor=ANCHOR,
    tracestate="vendor=x",
)
SECRET = "s3cr3t"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    token = enter_attempt(ATTEMPT)
    async with http_server() as server:
        yield server
        await close_session()
    leave_attempt(token)


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_json_goes_out_with_the_attempts_key_and_trace(server: Server) -> None:
    url = server.answer("/charges", 201, b'{"id": 5}', Content_Type="application/json", X_Other="a")
    answer = await send(HttpRequest("post", url, headers={"X-Shop": "north"}, json={"order": "A-1"}))
    assert (answer.status, answer.json(), answer.text()) == (201, {"id": 5}, '{"id": 5}')
    assert answer.headers["x-other"] == "a"
    (asked,) = server.asked
    assert asked.method == "POST"
    assert server.bodies == [b'{"order":"A-1"}']
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.headers["X-Shop"] == "north"
    assert asked.headers["Idempotency-Key"] == "key-7"
    assert asked.headers["tracestate"] == "vendor=x"
    parent = asked.headers["traceparent"]
    assert parent == ATTEMPT.traceparent
    assert parent.split("-")[1] == ANCHOR.split("-")[1], "the run's trace"


async def test_bytes_go_out_as_they_are_and_a_key_of_ones_own_wins(server: Server) -> None:
    url = server.answer("/raw")
    given = {"content-type": "text/plain", "idempotency-key": "mine"}
    await send(HttpRequest("PUT", url, headers=given, body=b"\x00\xff"))
    assert server.bodies == [b"\x00\xff"]
    assert server.asked[0].headers.getall("Idempotency-Key") == ["mine"]
    assert server.asked[0].headers.getall("Content-Type") == ["text/plain"]


async def test_secrets_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_TOKEN", f"Bearer {SECRET}\n")
    request = HttpRequest("GET", server.answer("/"), headers_from_env={"Authorization": "BILLING_TOKEN"})
    await send(request)
    assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    monkeypatch.delenv("BILLING_TOKEN")
    with pytest.raises(HttpRequestInvalid, match="BILLING_TOKEN"):
        await send(request)


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest("GET", "ftp://host/x"),
        HttpRequest("GET", "/only/a/path"),
        HttpRequest("GET", f"http://user:{SECRET}@host/"),
        HttpRequest("GET", "http://[broken/"),
        HttpRequest("GET", "http://host:99999/"),
        HttpRequest("GE T", "http://host/"),
        HttpRequest("", "http://host/"),
        HttpRequest("GET", "http://host/", headers={"X": "a\r\nY: b"}),
        HttpRequest("GET", "http://host/", headers={"X Y": "a"}),
        HttpRequest("POST", "http://host/", json={}, body=b"x"),
    ],
)
async def test_what_cannot_be_sent_is_said_without_secrets(server: Server, request_: HttpRequest) -> None:
    with pytest.raises(HttpRequestInvalid) as refused:
        await send(request_)
    assert SECRET not in refused.value.report()


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
async def test_a_status_that_no_repeat_changes(server: Server, status: int) -> None:
    url = server.answer("/x", status, b"no")
    with pytest.raises(HttpRefused) as refused:
        await send(HttpRequest("GET", f"{url}?token={SECRET}"))
    assert refused.value.status == status
    assert refused.value.message == f"GET http://127.0.0.1:{server.port} answered {status}."
    answer = await send(HttpRequest("GET", url, expect=(status,)))
    assert (answer.status, answer.body) == (status, b"no")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_status_that_may_change(server: Server, status: int) -> None:
    with pytest.raises(HttpUnavailable) as unavailable:
        await send(HttpRequest("GET", server.answer("/x", status)))
    assert (unavailable.value.status, unavailable.value.retry_after_ms) == (status, None)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("7", 7_000, 7_000), ("0", 0, 0), ("soon", None, None), ("", None, None), ("9" * 30, 86_400_000, 86_400_000)],
)
async def test_retry_after_in_seconds(server: Server, said: str, least: int | None, most: int | None) -> None:
    with pytest.raises(HttpUnavailable) as unavailable:
        await send(HttpRequest("GET", server.answer("/x", 503, Retry_After=said)))
    wait = unavailable.value.retry_after_ms
    assert wait == least == most if least is None or wait is None else least <= wait <= (most or 0)


async def test_retry_after_as_a_date(server: Server) -> None:

    future = datetime(2120, 1, 1, tzinfo=UTC)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for date, wait in ((future, 86_400_000), (past, 0)):
        said = format_datetime(date, usegmt=True)
        with pytest.raises(HttpUnavailable) as unavailable:
            await send(HttpRequest("GET", server.answer("/x", 429, Retry_After=said)))
        assert unavailable.value.retry_after_ms == wait


async def test_an_answer_has_a_limit(server: Server) -> None:
    url = server.answer("/large", body=b"x" * 1_001)
    with pytest.raises(HttpTooLarge, match="more than 1000 bytes"):
        await send(HttpRequest("GET", url, response_bytes_max=1_000))
    assert len((await send(HttpRequest("GET", url, response_bytes_max=1_001))).body) == 1_001
    assert (await send(HttpRequest("HEAD", url, response_bytes_max=10))).body == b""


async def test_an_answer_without_a_length_is_cut_off(server: Server) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 10_000)
        finally:
            ended.set()

    server.answers["/endless"] = endless
    with pytest.raises(HttpTooLarge):
        await send(HttpRequest("GET", server.url("/endless"), response_bytes_max=100_000))
    await ended.wait()


async def test_a_connection_that_fails_may_work_later(server: Server) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    server.answers |= {"/gone": gone, "/half": half}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and listens to nobody
        for url in (server.url("/gone"), server.url("/half"), f"http://127.0.0.1:{closed.getsockname()[1]}/"):
            with pytest.raises(HttpUnreachable) as failed:
                await send(HttpRequest("POST", f"{url}?token={SECRET}"))
            assert SECRET not in failed.value.report()
            assert failed.value.__cause__ is None


# --- redirects --------------------------------------------------------------------------------------------------------


async def test_a_read_follows_redirects_up_to_a_limit(server: Server) -> None:
    server.answer("/a", 302, Location="/b")
    server.answer("/b", 307, Location=server.url("/c"))
    server.answer("/c", 200, b"here")
    assert (await send(HttpRequest("GET", server.url("/a")))).body == b"here"
    with pytest.raises(HttpRedirectRefused, match="307"):
        await send(HttpRequest("GET", server.url("/a"), redirects=1))
    assert (await send(HttpRequest("GET", server.url("/a"), redirects=0, expect=(302,)))).status == 302


async def test_a_write_follows_none(server: Server) -> None:
    server.answer("/a", 303, Location="/b")
    with pytest.raises(HttpRedirectRefused):
        await send(HttpRequest("POST", server.url("/a")))
    assert len(server.asked) == 1


async def test_headers_do_not_follow_to_another_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_TOKEN", SECRET)
    server.answer("/a", 302, Location=f"http://localhost:{server.port}/b")
    server.answer("/b")
    given: dict[str, Any] = {"headers": {"X-Api-Key": SECRET}, "headers_from_env": {"Authorization": "BILLING_TOKEN"}}
    await send(HttpRequest("GET", server.url("/a"), **given))
    first, second = server.asked
    assert SECRET in first.headers.values()
    assert SECRET not in second.headers.values()
    assert second.headers["Idempotency-Key"] == "key-7"


@pytest.mark.parametrize("location", ["ftp://host/", "javascript:alert(1)", "http://[broken"])
async def test_redirects_to_elsewhere(server: Server, location: str) -> None:
    server.answer("/a", 302, Location=location)
    with pytest.raises(HttpRedirectRefused, match="no request goes"):
        await send(HttpRequest("GET", server.url("/a")))


# --- as a handler -----------------------------------------------------------------------------------------------------


async def test_the_guard_takes_failures_for_what_they_are(server: Server) -> None:
    retry = Retry(attempts=3, never=(HttpUnreachable,))
    billing = http_handler("billing", timeout="1m", retry=retry, breaker=Breaker("billing"))
    assert billing.name == "billing"
    assert billing.timeout_ms == 60_000
    watched = Watched()

    async def made(handler: Any, status: int, **headers: str) -> Any:
        url = server.answer("/x", status, b"{}", **headers)
        return await watched.guard.invoke(handler, call_of(handler, HttpRequest("GET", url)))

    again = await made(http_request, 503, Retry_After="3")
    assert isinstance(again, AttemptError)
    assert (again.retryable, again.retry_after_ms, again.cause) == (True, 3_000, Cause.RAISED)
    assert again.error == "headrace.handlers.http_request.HttpUnavailable"
    refused = await made(http_request, 404)
    assert (refused.retryable, refused.retry_after_ms) == (False, None)
    fine = await made(billing, 200)
    assert isinstance(fine, AttemptOk)
    assert msgspec.json.decode(bytes(fine.result), type=HttpResponse).json() == {}
    server.answer("/x", 200, b"{}")
    unreachable = await watched.guard.invoke(billing, call_of(billing, HttpRequest("GET", "http://127.0.0.1:1/")))
    assert isinstance(unreachable, AttemptError)
    assert not unreachable.retryable


async def test_the_attempts_time_ends_a_request(server: Server) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.answers["/silent"] = silent
    call = call_of(http_request, HttpRequest("GET", server.url("/silent")), timeout_ms=50)
    ended = await Watched().guard.invoke(http_request, call)
    assert isinstance(ended, AttemptError)
    assert ended.cause is Cause.TIMED_OUT


async def test_one_session_serves_and_can_be_closed_and_made_anew(server: Server) -> None:
    url = server.answer("/x")
    for _ in range(2):
        await send(HttpRequest("GET", url))
    ports = {request.transport.get_extra_info("peername")[1] for request in server.asked if request.transport}
    assert len(ports) == 1, "one connection, used again"
    await close_session()
    await close_session()
    await send(HttpRequest("GET", url))
    assert len(server.asked) == 3
