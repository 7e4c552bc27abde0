"""The built-in handler for HTTP in a real process: retried with one key, in the run's trace, and its session is closed."""

import json
from pathlib import Path

from aiohttp import web

from headrace.topics.log import NewRecord
from tests.handlers.http_server import http_server
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation


async def test_a_run_calls_a_server_until_it_answers(station: MakeStation, tmp_path: Path) -> None:
    place = station(Backend("embedded"), "caller.py")
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/shop"), ("ce_type", b"order"))
    async with http_server() as server:

        async def charges(_: web.Request) -> web.StreamResponse:
            return web.json_response({"charge": "c-1"}, status=503 if len(server.asked) < 3 else 200)

        server.answers["/charges"] = charges
        server.answer("/missing", 404)
        process = place.spawn(env={"E2E_URL": server.url("")})
        await process.ready()
        async with place.view() as view:
            await view.publish(
                "in", [NewRecord(b'{"id": "A-1"}', headers=(*headers, ("content-type", b"application/json")))]
            )
            ledger = await view.all_ended(1)
        (run,) = ledger.ended()
        code, out, err = place.command("run", "get", run, "-o", "json")
        assert code == 0, err
        shown = json.loads(out)
        assert process.stop() == 0
    assert shown["result"] == ["c-1", "headrace.handlers.http_request.HttpRefused"]
    charged = [request.headers for request in server.asked if request.path == "/charges"]
    assert len(charged) == 3
    assert len({each["Idempotency-Key"] for each in charged}) == 1
    parents = [each["traceparent"].split("-") for each in charged]
    assert {trace for _, trace, _, _ in parents} == {shown["trace_id"]}
    assert len({span for _, _, span, _ in parents}) == 3, "each attempt has a span of its own"
    assert server.bodies[0] == b'{"order":"A-1"}'
    assert "Unclosed" not in process.stderr
