"""The OpenTelemetry observer: a run's spans, made whole when they are over and handed to a span processor.

A run's *anchor* is a zero-length CONSUMER span `start {workflow}`, exported as soon as the run is admitted; `attempt
{task}`, `sleep` and `end {workflow}` are its children. Replay emits nothing, because it tells no observer. The only
file that imports the SDK; see `traces.py`.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from headrace.observability import told_run
from headrace.observability.label import Ending, SpanResult
from headrace.observability.silent import Silent
from headrace.topics.errors import SettingsError
from headrace.topics.outcome import RunStatus
from headrace.topics.trace_context import TraceContext, attempt_span_id, parse_traceparent, span_id_of

SCOPE: Final = "headrace"
MESSAGE_LENGTH_MAX: Final = 500
"""Of an error's message in a span's status."""
PROTOCOL_MISSING: Final = "HR1303"
REFUSED: Final = "HR1304"
_PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP: Final = "http/protobuf"
STOP_S: Final = 5.0
"""What a stop waits for an endpoint that hangs, at most."""


def exporting(*, app: str, instance: str, version: str, mask: Callable[[str], str] = str) -> TraceObserver:
    """An observer that exports by OTLP, by the standard variables. `mask` hides secrets in errors.

    Raises SettingsError for a protocol that is not at hand, and for variables that OpenTelemetry refuses.
    """
    own: dict[str, str] = {"service.instance.id": instance, "service.version": version}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        own["service.name"] = app
    counts = SpanCounts()
    return TraceObserver(processor(counts), Resource.create(own), mask, counts)


def processor(counts: SpanCounts) -> SpanProcessor:
    """A queue with a thread, and the exporter behind it. Nothing is sent yet. Raises SettingsError as `exporting` does."""
    try:
        return BatchSpanProcessor(_Counted(_exporter(), counts))
    except SettingsError:
        raise
    except Exception as error:  # the exporters have classes of their own for what they refuse
        raise SettingsError(
            f"OpenTelemetry refuses its OTEL_* variables: {error}",
            code=REFUSED,
            why="Spans cannot be queued or sent with them.",
            do="Correct the variable that is meant, or leave it out. Batches (OTEL_BSP_MAX_EXPORT_BATCH_SIZE, 512) fit into the queue "
            "(OTEL_BSP_MAX_QUEUE_SIZE, 2048).",
        ) from error


class SpanCounts:
    """Spans made (counted on the event loop), and exported or failed (in the exporter's thread)."""

    def __init__(self) -> None:
        self._made = self._exported = self._failed = 0

    def made(self) -> None:
        """One more."""
        self._made += 1

    def ended(self, spans: int, *, well: bool) -> None:
        """An export of so many is over."""
        if well:
            self._exported += spans
        else:
            self._failed += spans

    def __call__(self) -> dict[SpanResult, int]:
        """Now, from any thread."""
        return {SpanResult.MADE: self._made, SpanResult.EXPORTED: self._exported, SpanResult.FAILED: self._failed}


class _Counted(SpanExporter):
    """An exporter whose results are counted."""

    def __init__(self, exporter: SpanExporter, counts: SpanCounts) -> None:
        self._exporter = exporter
        self._counts = counts

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, and count what became of it."""
        well = False
        try:
            result = self._exporter.export(spans)
            well = result is SpanExportResult.SUCCESS
        finally:
            self._counts.ended(len(spans), well=well)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _exporter() -> SpanExporter:
    """Over HTTP (protobuf), or over gRPC where its package is installed."""
    named = (os.environ.get(name, "").strip().lower() for name in _PROTOCOL_VARIABLES)
    protocol = next((name for name in named if name), _HTTP)
    if protocol == _HTTP:
        return OTLPSpanExporter()
    if protocol != "grpc":
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol[:40]!r} is not supported.",
            code=PROTOCOL_MISSING,
            why="Spans leave as http/protobuf or grpc.",
            do=f"Set it to {_HTTP}, with a collector's port for that (4318).",
        )
    try:
        return importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter").OTLPSpanExporter()
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs a package that is not installed.",
            code=PROTOCOL_MISSING,
            why="gRPC is a large library that few need; http/protobuf is built in.",
            do=f"pip install headrace[otlp-grpc], or set the protocol to {_HTTP}.",
        ) from error


class TraceObserver(Silent):
    """Makes whole spans and hands them to a span processor, which never blocks.

    A full queue drops spans, a hanging endpoint hangs its own thread.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        resource: Resource,
        mask: Callable[[str], str] = str,
        counts: SpanCounts | None = None,
    ) -> None:
        self.counts = counts or SpanCounts()
        self._mask = mask
        self._processor = processor
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE)

    def close(self) -> None:
        """Send what is queued, for at most `STOP_S`. Blocks: call it in a thread, after the last hook."""
        ending = threading.Thread(target=self._processor.shutdown, name="headrace-traces-end", daemon=True)
        ending.start()
        ending.join(STOP_S)

    def run_started(self, started: told_run.RunStarted, /) -> None:
        anchor = _sampled(started.traceparent, started.tracestate)
        if anchor is None:
            return
        attributes: dict[str, AttributeValue] = {
            "headrace.workflow.name": started.workflow,
            "headrace.workflow.version": started.version,
            "headrace.run.id": started.run,
            "headrace.trigger.type": started.trigger,
            "messaging.message.conversation_id": started.run,
        }
        if started.parent is not None:
            attributes["headrace.parent.run.id"] = started.parent
        if started.topic is not None:
            attributes["messaging.system"] = "kafka"
            attributes["messaging.operation.type"] = "process"
            attributes["messaging.operation.name"] = "process"
            attributes["messaging.destination.name"] = started.topic
            if started.partition is not None:
                attributes["messaging.destination.partition.id"] = str(started.partition)
            if started.offset is not None:
                attributes["messaging.kafka.offset"] = started.offset
            if started.event_id is not None:
                attributes["messaging.message.id"] = started.event_id
        producer = parse_traceparent(started.producer_traceparent or "")
        goes_on = producer is not None and producer.trace_id == anchor.trace_id
        caller = None if producer is None else _span_context(producer, producer.span_id, remote=True)
        at_ns = started.started_at_ms * 1_000_000
        self._emit(
            name=f"start {started.workflow}",
            context=_span_context(anchor, anchor.span_id),
            parent=caller if goes_on else None,
            links=() if caller is None or goes_on else (Link(caller),),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            start_ns=at_ns,
            end_ns=at_ns,
        )

    def attempt_ended(self, ended: told_run.AttemptEnded, /) -> None:
        anchor = _sampled(ended.traceparent, ended.tracestate)
        if anchor is None:
            return
        attributes: dict[str, AttributeValue] = {
            "headrace.workflow.name": ended.workflow,
            "headrace.run.id": ended.run,
            "headrace.task.ref": ended.step,
            "headrace.task.name": ended.handler,
            "headrace.attempt": ended.number,
            "headrace.attempt.ending": ended.ending,
        }
        if ended.compensation:
            attributes["headrace.compensation"] = True
        if ended.ending is not Ending.SUCCEEDED:
            attributes["error.type"] = ended.error or str(ended.cause or ended.ending)
        links: tuple[Link, ...] = ()
        if ended.number > 1:
            before = attempt_span_id(ended.run, ended.step, ended.number - 1)
            links = (Link(_span_context(anchor, before)),)
        start_ns = ended.started_at_ms * 1_000_000
        self._emit(
            name=f"attempt {ended.handler}",
            context=_span_context(anchor, attempt_span_id(ended.run, ended.step, ended.number)),
            parent=_span_context(anchor, anchor.span_id),
            links=links,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_ns=start_ns,
            end_ns=_ns(ended.started_at_ms, ended.duration_ms),
            error=None if ended.ending is Ending.SUCCEEDED else ended.message or ended.ending,
        )

    def timer_fired(self, fired: told_run.TimerFired, /) -> None:
        start_ns = fired.armed_at_ms * 1_000_000
        self._wait_ended("sleep", fired, start_ns, _ns(fired.due_at_ms, fired.late_ms))

    def approval_decided(self, decided: told_run.ApprovalDecided, /) -> None:
        start_ns, end_ns = decided.requested_at_ms * 1_000_000, decided.decided_at_ms * 1_000_000
        attributes = {"headrace.approval.id": decided.approval, "headrace.approval.decision": decided.ending}
        self._wait_ended("approval", decided, start_ns, end_ns, attributes)

    def _wait_ended(
        self,
        name: str,
        ended: told_run.TimerFired | told_run.ApprovalDecided,
        start_ns: int,
        end_ns: int,
        attributes: Mapping[str, AttributeValue] = MappingProxyType({}),
    ) -> None:
        """A step in which the run only waited, as a child of its anchor. One that ends before it begins (clocks of two machines) has no length."""
        anchor = _sampled(ended.traceparent, ended.tracestate)
        if anchor is None:
            return
        self._emit(
            name=name,
            context=_span_context(anchor, span_id_of(ended.run, ended.step)),
            parent=_span_context(anchor, anchor.span_id),
            kind=SpanKind.INTERNAL,
            attributes={
                "headrace.workflow.name": ended.workflow,
                "headrace.run.id": ended.run,
                "headrace.task.ref": ended.step,
                **attributes,
            },
            start_ns=start_ns,
            end_ns=max(start_ns, end_ns),
        )

    def run_finished(self, finished: told_run.RunFinished, /) -> None:
        anchor = _sampled(finished.traceparent, finished.tracestate)
        if anchor is None:
            return
        at_ns = _ns(finished.started_at_ms, finished.duration_ms)
        attributes: dict[str, AttributeValue] = {
            "headrace.workflow.name": finished.workflow,
            "headrace.workflow.version": finished.version,
            "headrace.run.id": finished.run,
            "headrace.run.status": finished.status,
        }
        good = finished.status is RunStatus.SUCCEEDED
        if not good and finished.error:
            attributes["error.type"] = finished.error
        self._emit(
            name=f"end {finished.workflow}",
            context=_span_context(anchor, span_id_of(finished.run, "end")),
            parent=_span_context(anchor, anchor.span_id),
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_ns=at_ns,
            end_ns=at_ns,
            error=None if good else finished.message or finished.status,
        )

    def _emit(
        self,
        *,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        start_ns: int,
        end_ns: int,
        links: tuple[Link, ...] = (),
        error: str | None = None,
    ) -> None:
        span = ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            links=links,
            kind=kind,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.UNSET)
            if error is None
            else Status(StatusCode.ERROR, self._mask(error)[:MESSAGE_LENGTH_MAX]),
            start_time=start_ns,
            end_time=end_ns,
        )
        self.counts.made()
        self._processor.on_end(span)


def _ns(at_ms: int, later_ms: float) -> int:
    """Nanoseconds since 1970. Added as integers: a float of that size has steps of 256 ns."""
    return at_ms * 1_000_000 + max(0, round(later_ms * 1_000_000))


def _sampled(traceparent: str | None, tracestate: str | None) -> TraceContext | None:
    """The run's anchor if this run is traced."""
    if traceparent is None or traceparent[-1:] not in "13579bdf":
        return None
    anchor = parse_traceparent(traceparent)
    if anchor is None or not tracestate:
        return anchor
    return TraceContext(anchor.trace_id, anchor.span_id, anchor.flags, tracestate)


def _span_context(of: TraceContext, span_id: str, *, remote: bool = False) -> SpanContext:
    """A span of the trace of `of`, with its flags and state."""
    return SpanContext(
        trace_id=int(of.trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=remote,
        trace_flags=TraceFlags(of.flags),
        trace_state=TraceState.from_header([of.state]) if of.state else None,
    )
