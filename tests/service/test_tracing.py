"""The spans of a real run, from the producer's context to the result record's headers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from headrace.observability.silent import Silent
from headrace.observability.told_run import RunFinished
from headrace.observability.trace_observer import TraceObserver
from headrace.service.composition import Started, serve
from headrace.service.definitions.loader import load_app
from headrace.service.log_backend import log_of
from headrace.service.settings import Settings
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.trace_context import trace_id_of
from tests.service.first_record import first_record_of_topic

APP = """
from headrace import EventTrigger, Retry, Run, current_attempt, handler, workflow

@handler(retry=Retry(attempts=3, delay="1ms", cap="1ms"))
async def flaky(order: dict) -> str:
    attempt = current_attempt()
    if attempt.number == 1:
        raise ConnectionError("try again")
    return attempt.traceparent or ""

@workflow(on=EventTrigger("orders"), emits=["results"])
async def traced(run: Run, order: dict) -> str:
    seen = await run.call(flaky, order)
    await run.sleep("1ms")
    await run.emit("done", {"seen": seen}, topic="results")
    return seen
"""
PRODUCER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Finished(Silent):
    def __init__(self) -> None:
        self.runs: asyncio.Queue[RunFinished] = asyncio.Queue()

    def run_finished(self, finished: RunFinished, /) -> None:
        self.runs.put_nowait(finished)


async def test_a_run_is_one_trace_linked_to_its_producer(tmp_path: Path) -> None:
    (tmp_path / "traced_app.py").write_text(APP)
    settings = Settings.model_validate(
        {
            "log": {"path": tmp_path / "log.sqlite", "partitions": 2},
            "telemetry": {"metrics_port": 0},
            "api": {"enabled": False},
        }
    )
    exporter = InMemorySpanExporter()
    finished = Finished()
    stop, started = asyncio.Event(), asyncio.Event()

    def ready(_: Started) -> None:
        started.set()

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        group.create_task(
            serve(
                settings,
                load_app(tmp_path / "traced_app.py"),
                stop=stop,
                create_topics=True,
                started=ready,
                observers=[finished, TraceObserver(SimpleSpanProcessor(exporter), Resource.create({}))],
            )
        )
        await started.wait()
        async with log_of(settings, owner=False) as log:
            record = NewRecord(
                value=b'{"id": "A-1"}',
                key=b"A-1",
                headers=(("traceparent", PRODUCER.encode()), ("tracestate", b"shop=1")),
            )
            await log.publish(TopicPartition("orders", 0), [record])
            run = (await finished.runs.get()).run
            result = await first_record_of_topic(log, "results")
        stop.set()

    spans = {span.name: span for span in exporter.get_finished_spans() if span.name != "attempt flaky"}
    attempts = [span for span in exporter.get_finished_spans() if span.name == "attempt flaky"]
    anchor = spans["start traced"]
    assert {format(span.context.trace_id, "032x") for span in exporter.get_finished_spans() if span.context} == {
        trace_id_of(run)
    }
    assert anchor.kind is SpanKind.CONSUMER
    assert [format(link.context.span_id, "016x") for link in anchor.links] == ["b7ad6b7169203331"]
    assert [span.attributes and span.attributes["headrace.attempt"] for span in attempts] == [1, 2]
    assert [span.status.is_ok for span in attempts] == [False, True]
    assert [span_id(link.context.span_id) for link in attempts[1].links] == [id_of(attempts[0])]
    assert {parent_of(span) for span in (*attempts, spans["sleep"], spans["end traced"])} == {id_of(anchor)}

    headers = dict(result.headers)
    assert headers["traceparent"].decode().split("-")[1] == trace_id_of(run)
    assert PRODUCER in headers["tracestate"].decode()
    assert "shop=1" in headers["tracestate"].decode()
    assert result.value is not None
    assert id_of(attempts[1]) in result.value.decode()  # what the handler saw is the span that was exported


def span_id(number: int) -> str:
    return format(number, "016x")


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return span_id(span.context.span_id)


def parent_of(span: ReadableSpan) -> str:
    assert span.parent is not None
    return span_id(span.parent.span_id)
