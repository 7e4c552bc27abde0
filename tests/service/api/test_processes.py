"""Runs that another process works on, and the caller's trace around a run: on real processes."""

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kafka_broker.broker import KafkaBroker
from tests.observability.otlp_receiver import OtlpReceiver
from tests.service.api.client import Client
from tests.service.api.conftest import APP, ON
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.waiting import eventually_now

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_run_over_http_is_a_child_of_its_caller(station: MakeStation) -> None:
    place = station(Backend("embedded"), APP, api__port=0)
    with OtlpReceiver() as collector:
        traces = {**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        service = await place.spawn(env=traces).ready()
        api = Client(service.api_url)
        run = api.start("fulfil", {"id": "T"}, Prefer="wait=60", traceparent=CALLER, tracestate="shop=1").json
        assert run["status"] == "succeeded"
        shown = api.get(f"/api/v1/runs/{run['id']}").json
        spans: dict[str, Span] = {}

        def told() -> bool:
            spans.update((span.name, span) for span in collector.spans())
            return {"start fulfil", "attempt charge", "end fulfil"} <= spans.keys()

        await eventually_now(told, lambda: f"more spans than {spans.keys()}")
        assert service.stop() == 0
    _, trace, parent, _ = CALLER.split("-")
    assert {span.trace_id.hex() for span in spans.values()} == {trace} == {shown["trace_id"]}
    anchor = spans["start fulfil"]
    assert (anchor.parent_span_id.hex(), list(anchor.links)) == (parent, [])
    assert spans["attempt charge"].parent_span_id == anchor.span_id
    assert anchor.trace_state == "shop=1"


async def test_any_process_answers_for_runs_of_all(station: MakeStation, kafka: KafkaBroker) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), APP, api__port=0)
    first = await place.spawn(env=ON).ready()
    second = await place.spawn(env=ON).ready()
    await eventually_now(lambda: owned(second.scrape()) and owned(first.scrape()), "each has some partitions")
    for service in (first, second):
        api = Client(service.api_url)
        for number in range(8):  # keys of many partitions
            run = api.start("fulfil", {"id": f"{service.pid}-{number}"}, Prefer="wait=60").json
            assert run["status"] == "succeeded", run
    slow = Client(first.api_url).start("fulfil", {"id": "slow", "slow": True}).json["id"]
    assert Client(second.api_url).post(f"/api/v1/runs/{slow}/cancel").json["status"] == "cancelled"
    found = Client(second.api_url).get("/api/v1/runs?limit=200").json["items"]
    assert sorted({run["status"] for run in found}) == ["cancelled", "succeeded"]
    assert len(found) == 17
    assert [second.stop(), first.stop()] == [0, 0]


def owned(scrape: str) -> bool:
    """Whether the process has run-log partitions."""
    wanted = "headrace_kafka_partitions_assigned{group="
    rows = [line for line in scrape.splitlines() if line.startswith(wanted) and ".owners" in line]
    return any(not line.endswith(" 0.0") for line in rows)
