"""Spans as a collector gets them: ids, parents, links, kinds, attributes, status."""

import ast
import re
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from headrace.observability import told_run, trace_observer
from headrace.observability.label import Ending
from headrace.observability.trace_observer import TraceObserver
from headrace.observability.traces import Contexts, Sampling, tracing
from headrace.topics.errors import SettingsError
from headrace.topics.outcome import RunStatus
from headrace.topics.trace_context import TraceContext, attempt_context, span_id_of, trace_id_of
from tests.observability.otlp_receiver import OtlpReceiver
from tests.observability.otlp_receiver_grpc import GrpcOtlpReceiver
from tests.observability.workload import ONE_OF_EACH, RUN

PRODUCER = TraceContext("c" * 32, "d" * 16, 1, "vendor=x")


class Traced:
    """A run told to the observer, and the spans that came of it, by name and attempt."""

    def __init__(
        self, *, producer: TraceContext | None = PRODUCER, ratio: float = 1, parent_from_kafka: bool = False
    ) -> None:
        self.exporter = InMemorySpanExporter()
        self.observer = TraceObserver(SimpleSpanProcessor(self.exporter), Resource({"service.name": "shop"}))
        rule = Contexts(sampling=Sampling(ratio=ratio), parent_from_kafka=parent_from_kafka)
        self.anchor = rule.anchor(RUN, producer)
        given = {"traceparent": self.anchor.traceparent, "tracestate": self.anchor.state}
        sent = None if producer is None else producer.traceparent
        attempt = replace(ONE_OF_EACH["attempt_ended"], **given)
        self.observer.run_started(replace(ONE_OF_EACH["run_started"], producer_traceparent=sent, **given))
        self.observer.attempt_ended(replace(attempt, number=1))
        self.observer.attempt_ended(
            replace(attempt, number=2, ending=Ending.SUCCEEDED, cause=None, error="", message="")
        )
        self.observer.timer_fired(replace(ONE_OF_EACH["timer_fired"], **given))
        self.observer.approval_decided(replace(ONE_OF_EACH["approval_decided"], **given))
        self.observer.run_finished(replace(ONE_OF_EACH["run_finished"], **given))
        self.spans = list(self.exporter.get_finished_spans())

    def span(self, name: str, **attributes: object) -> ReadableSpan:
        (found,) = [
            span
            for span in self.spans
            if span.name == name and span.attributes is not None and attributes.items() <= dict(span.attributes).items()
        ]
        return found


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_the_anchor_is_a_consumer_span_without_length_in_a_trace_of_its_own() -> None:
    span = Traced().span("start fulfil")
    assert span.kind is SpanKind.CONSUMER
    assert span.start_time == span.end_time == 1_700_000_000_000_000_000
    assert ids(span) == (trace_id_of(RUN), span_id_of(RUN, "start"))
    assert span.parent is None
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "orders",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 6,
        "messaging.message.id": "e-6",
        "messaging.message.conversation_id": RUN,
        "headrace.workflow.name": "fulfil",
        "headrace.workflow.version": "1",
        "headrace.run.id": RUN,
        "headrace.trigger.type": "event",
    }


def test_the_producer_is_linked_and_kept_in_the_state() -> None:
    span = Traced().span("start fulfil")
    (link,) = span.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (PRODUCER.trace_id, PRODUCER.span_id)
    assert link.context.is_remote
    assert span.context is not None
    assert span.context.trace_state.to_header() == f"headrace={PRODUCER.traceparent},vendor=x"


def test_the_producers_trace_goes_on_with_parent_from_kafka() -> None:
    traced = Traced(parent_from_kafka=True)
    span = traced.span("start fulfil")
    assert ids(span)[0] == PRODUCER.trace_id
    assert span.links == ()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PRODUCER.span_id
    assert {ids(each)[0] for each in traced.spans} == {PRODUCER.trace_id}


def test_attempts_and_the_end_are_children_of_the_anchor() -> None:
    traced = Traced()
    anchor = traced.span("start fulfil")
    assert [span.name for span in traced.spans] == [
        "start fulfil",
        "attempt charge",
        "attempt charge",
        "sleep",
        "approval",
        "end fulfil",
    ]
    for span in traced.spans[1:]:
        assert span.parent is not None
        assert span.parent.span_id == int(ids(anchor)[1], 16)
        assert ids(span)[0] == ids(anchor)[0]
        assert span.kind is SpanKind.INTERNAL
    assert len({ids(span)[1] for span in traced.spans}) == len(traced.spans)


def test_an_attempts_span_is_the_one_that_its_handler_was_given() -> None:
    traced = Traced()
    span = traced.span("attempt charge", **{"headrace.attempt": 1})
    assert ids(span)[1] == attempt_context(traced.anchor, RUN, "/1/charge", 1).span_id
    assert (span.start_time, span.end_time) == (1_700_000_000_010_000_000, 1_700_000_000_017_000_000)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "refused"
    assert (span.attributes or {})["error.type"] == "ConnectionError"


def test_a_retry_links_to_the_attempt_before() -> None:
    traced = Traced()
    first = traced.span("attempt charge", **{"headrace.attempt": 1})
    second = traced.span("attempt charge", **{"headrace.attempt": 2})
    assert first.links == ()
    (link,) = second.links
    assert f"{link.context.span_id:016x}" == ids(first)[1]
    assert second.status.status_code is StatusCode.UNSET
    assert "error.type" not in (second.attributes or {})


def test_a_wait_has_its_true_start() -> None:
    span = Traced().span("sleep")
    assert (span.start_time, span.end_time) == (1_700_000_000_500_000_000, 1_700_000_001_003_000_000)


def test_so_has_one_for_people() -> None:
    span = Traced().span("approval")
    assert (span.start_time, span.end_time) == (1_700_000_000_600_000_000, 1_700_000_040_000_000_000)
    attributes = dict(span.attributes or {})
    assert (attributes["headrace.approval.id"], attributes["headrace.approval.decision"]) == (
        f"{RUN}-3-approval",
        "approved",
    )


@pytest.mark.parametrize("status", list(RunStatus))
def test_the_end_has_the_runs_status(status: RunStatus) -> None:
    traced = Traced()
    traced.exporter.clear()
    finished = replace(ONE_OF_EACH["run_finished"], status=status, traceparent=traced.anchor.traceparent)
    traced.observer.run_finished(finished)
    (span,) = traced.exporter.get_finished_spans()
    assert (span.attributes or {})["headrace.run.status"] == status
    assert (span.status.status_code is StatusCode.UNSET) == (status is RunStatus.SUCCEEDED)
    assert span.start_time == span.end_time == 1_700_000_000_084_000_000


def test_a_run_that_is_not_sampled_makes_no_span() -> None:
    assert Traced(producer=None, ratio=0).spans == []
    assert Traced(producer=TraceContext("c" * 32, "d" * 16, 0)).spans == []


@pytest.mark.parametrize("text", ["", "1", "00-1", "x" * 600 + "1", "00-" + "0" * 32 + "-" + "1" * 16 + "-01"])
def test_a_malformed_context_makes_no_span_and_no_error(text: str) -> None:
    traced = Traced()
    traced.exporter.clear()
    traced.observer.run_finished(replace(ONE_OF_EACH["run_finished"], traceparent=text))
    assert traced.exporter.get_finished_spans() == ()


def test_a_long_error_is_cut() -> None:
    traced = Traced()
    traced.exporter.clear()
    traced.observer.run_finished(
        replace(ONE_OF_EACH["run_finished"], message="x" * 1_000_000, traceparent=traced.anchor.traceparent)
    )
    (span,) = traced.exporter.get_finished_spans()
    assert len(span.status.description or "") == trace_observer.MESSAGE_LENGTH_MAX


@pytest.mark.parametrize(("protocol", "receiving"), [("http/protobuf", OtlpReceiver), ("grpc", GrpcOtlpReceiver)])
def test_a_collector_gets_the_spans_by_otlp(
    monkeypatch: pytest.MonkeyPatch, protocol: str, receiving: type[OtlpReceiver | GrpcOtlpReceiver]
) -> None:
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        observer = tracing(app="shop", instance="i-1", version="0.1.0")
        assert observer is not None
        anchor = Traced().anchor
        given = {"traceparent": anchor.traceparent, "tracestate": anchor.state}
        observer.run_started(replace(ONE_OF_EACH["run_started"], producer_traceparent=PRODUCER.traceparent, **given))
        observer.attempt_ended(replace(ONE_OF_EACH["attempt_ended"], **given))
        observer.close()
        assert dict(observer.counts()) == {"made": 2, "exported": 2, "failed": 0}
        (resource,) = receiver.requests.get(timeout=20).resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (named["service.name"], named["service.instance.id"]) == ("shop", "i-1")
    (scope,) = resource.scope_spans
    start, attempt = scope.spans
    assert start.trace_id.hex() == trace_id_of(RUN)
    assert start.kind == start.SPAN_KIND_CONSUMER
    assert start.links[0].trace_id.hex() == PRODUCER.trace_id
    assert start.trace_state.startswith("headrace=")
    assert attempt.parent_span_id == start.span_id
    assert attempt.status.code == attempt.status.STATUS_CODE_ERROR


@pytest.mark.parametrize(("protocol", "fix"), [("grpc", "pip install"), ("http/json", "http/protobuf")])
def test_a_protocol_that_is_not_there_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, protocol: str, fix: str
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL") as refused:
        trace_observer.exporting(app="shop", instance="i-1", version="1")
    assert refused.value.code == "HR1303"
    assert fix in refused.value.do


@pytest.mark.parametrize(
    ("variable", "protocol"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "http/protobuf"),
        ("OTEL_BSP_SCHEDULE_DELAY", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "grpc"),
    ],
)
def test_variables_that_opentelemetry_refuses_are_no_bug_of_ours(
    monkeypatch: pytest.MonkeyPatch, variable: str, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv(variable, "-1")
    with pytest.raises(SettingsError, match="OTEL_") as refused:
        trace_observer.exporting(app="shop", instance="i-1", version="1")
    assert refused.value.code == "HR1304"


def until_all_has_ended() -> None:
    """An exporter that tries again does so in a thread, with chance in its back-off: it must not outlive its test."""
    for thread in threading.enumerate():
        if thread.name.startswith(("OtelBatch", "headrace-traces")):
            thread.join(60)
            assert not thread.is_alive()


def test_an_endpoint_that_hangs_stalls_neither_hooks_nor_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    monkeypatch.setattr(trace_observer, "STOP_S", 0)
    with OtlpReceiver(hangs=True) as receiver:
        exporter: SpanExporter = OTLPSpanExporter(endpoint=f"{receiver.endpoint}/v1/traces", timeout=1)
        processor = BatchSpanProcessor(exporter, max_queue_size=4, max_export_batch_size=1)
        observer = TraceObserver(processor, Resource({}))
        anchor = Traced().anchor.traceparent
        told: told_run.AttemptEnded = replace(ONE_OF_EACH["attempt_ended"], traceparent=anchor)
        observer.attempt_ended(told)
        assert receiver.asked.wait(20)
        for _ in range(1000):  # far over the queue, while the endpoint holds its one request
            observer.attempt_ended(told)
        assert receiver.requests.empty()
        observer.close()
        assert receiver.requests.empty()  # it did not wait for the answer
    until_all_has_ended()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_spans_for_an_endpoint_that_is_gone_are_counted_as_failed(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    with OtlpReceiver() as receiver:
        gone = receiver.endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    observer = trace_observer.exporting(app="shop", instance="i-1", version="1")
    told: told_run.AttemptEnded = replace(ONE_OF_EACH["attempt_ended"], traceparent=Traced().anchor.traceparent)
    for _ in range(100):
        observer.attempt_ended(told)
    observer.close()
    until_all_has_ended()
    counts = observer.counts()
    assert (counts["made"], counts["exported"]) == (100, 0)  # pyright: ignore[reportArgumentType] - a StrEnum's word
    assert 4 <= counts["failed"] < 100  # pyright: ignore[reportArgumentType] - the rest did not fit into the queue


def test_the_page_lists_the_attributes() -> None:
    code = ast.parse(Path(trace_observer.__file__).read_text())
    texts = {node.value for node in ast.walk(code) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    page = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()
    rows = re.findall(r"^\| (`(?:headrace|messaging|error)\.[^|]*) \|", page, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert listed == {text for text in texts if re.fullmatch(r"(headrace|messaging|error)\.[a-z_.]+", text)}
