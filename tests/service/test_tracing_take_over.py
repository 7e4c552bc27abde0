"""The trace of a run that outlives its process: what the second one exports belongs to what the first one began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import pytest
from msgspec.structs import replace
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability import trace_observer
from headrace.observability.fan_out import FanOut
from headrace.observability.trace_observer import exporting
from headrace.service.definitions.app import App
from headrace.service.owner import Owner
from headrace.topics.trace_context import trace_id_of
from tests.observability.otlp_receiver import OtlpReceiver
from tests.service.fault_log import FaultLog
from tests.service.shell import PATIENCE_S, Place, Recorder, app_of, event, serving, until

PRODUCER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued is sent, however long that takes."""
    monkeypatch.setattr(trace_observer, "STOP_S", PATIENCE_S)


class Life(NamedTuple):
    """A process of the app, with the owner of its only partition. Its end is a crash if the log is dead by then."""

    log: FaultLog
    recorder: Recorder
    owner: Owner


@asynccontextmanager
async def a_life(place: Place, app: App, monkeypatch: pytest.MonkeyPatch, told: list[Span]) -> AsyncGenerator[Life]:
    """One process that traces; behind it, the spans it has exported are in `told`."""
    with OtlpReceiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        recorder, log = Recorder(), FaultLog(place.log)
        tracer = exporting(app="shop", instance="i", version="1")
        both = FanOut([recorder, tracer], lambda *_: None)
        async with serving(log, app, observer=cast("Recorder", both), partitions=1) as process:
            yield Life(log, recorder, process.service.owners[0])
        await asyncio.to_thread(tracer.close)
        told += collector.spans()


async def publish_traced(place: Place, flags: str) -> None:
    """An event that starts a run, from a producer that traces (01) or does not (00)."""
    order = event({"n": 1}, type="work")
    header = ("traceparent", f"{PRODUCER}{flags}".encode())
    await place.publish("in", replace(order, headers=(*order.headers, header)))


@pytest.mark.parametrize("flags", ["01", "00"])
async def test_a_run_keeps_its_trace_and_its_sampling_through_a_crash(
    place: Place, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    first_try, go_on = asyncio.Event(), asyncio.Event()

    @handler
    async def charge() -> None:
        first_try.set()
        await go_on.wait()

    @workflow(on=EventTrigger("in", "work"), name="worker")
    async def worker(run: Run, order: dict[str, Any]) -> None:
        await run.call(charge)

    app, told = app_of(charge, worker), list[Span]()
    async with a_life(place, app, monkeypatch, told) as first:
        await publish_traced(place, flags)
        await first_try.wait()
        (run,) = first.owner.state.runs
        first.log.dead = True
    go_on.set()
    async with a_life(place, app, monkeypatch, told) as second:
        await until(lambda: second.recorder.finished)
    if flags == "00":
        assert told == []  # decided once, by the producer, and kept in the log
        return
    by_name = {span.name: span for span in told}
    # What the first process told and nothing in the log confirms is told again, as the same span.
    assert {(span.name, span.span_id) for span in told} == {(name, span.span_id) for name, span in by_name.items()}
    anchor, attempt, end = (by_name[name] for name in ("start worker", "attempt charge", "end worker"))
    assert {span.trace_id.hex() for span in told} == {trace_id_of(run)}
    assert (attempt.parent_span_id, end.parent_span_id) == (anchor.span_id, anchor.span_id)
    assert anchor.kind == Span.SPAN_KIND_CONSUMER
    assert [link.span_id.hex() for link in anchor.links] == ["b7ad6b7169203331"]
    values = {each.key: each.value.string_value or each.value.int_value for each in attempt.attributes}
    assert values["headrace.run.id"] == run
    assert values["headrace.workflow.name"] == "worker"


async def test_children_are_in_their_parent_s_trace_or_linked_to_it_through_a_crash(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = [asyncio.Event(), asyncio.Event()], asyncio.Event()

    @handler
    async def work(n: int) -> None:
        began[n].set()
        await go_on.wait()

    @workflow(name="child")
    async def child(run: Run, n: int) -> None:
        await run.call(work, n)

    @workflow(on=EventTrigger("in", "work"), name="parent")
    async def parent(run: Run, order: dict[str, Any]) -> None:
        await run.start_child(child, 0)
        await run.call_child(child, order["n"])

    app, told = app_of(work, child, parent), list[Span]()
    async with a_life(place, app, monkeypatch, told) as first:
        await publish_traced(place, "01")
        await asyncio.gather(*[each.wait() for each in began])
        runs = {run.start.workflow: run for run in first.owner.state.runs.values()}
        awaited = runs["parent"].children["/2/child"]
        first.log.dead = True
    go_on.set()
    async with a_life(place, app, monkeypatch, told) as second:
        await until(lambda: len(second.recorder.finished) == 3)
    spans = {(span.name, run_of(span)): span for span in told}
    (start,) = [span for (name, _), span in spans.items() if name == "start parent"]
    ours, other = (
        next(span for (name, run), span in spans.items() if name == "start child" and (run == awaited) is wanted)
        for wanted in (True, False)
    )
    assert (ours.trace_id, ours.parent_span_id, list(ours.links)) == (start.trace_id, start.span_id, [])
    assert (other.parent_span_id, [link.span_id for link in other.links]) == (b"", [start.span_id])
    assert other.trace_id.hex() == trace_id_of(run_of(other)) != start.trace_id.hex()
    for anchor in (ours, other):  # what the second process told belongs to what the first one began
        its = [spans[name, run_of(anchor)] for name in ("attempt work", "end child")]
        assert {(span.trace_id, span.parent_span_id) for span in its} == {(anchor.trace_id, anchor.span_id)}
    kinds = {each.key: each.value.string_value for each in ours.attributes}
    assert (kinds["headrace.trigger.type"], kinds["headrace.parent.run.id"]) == ("child", run_of(start))


def run_of(span: Span) -> str:
    return next(each.value.string_value for each in span.attributes if each.key == "headrace.run.id")
