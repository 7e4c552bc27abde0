"""Contexts of runs and attempts, and who is sampled; nothing here needs OpenTelemetry."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from headrace.observability.traces import Sampling, configured, contexts, secrets_in
from headrace.topics.trace_context import (
    TraceContext,
    attempt_context,
    attempt_traceparent,
    parse_traceparent,
    producer_of,
    span_id_of,
    trace_id_of,
)

RUNS = [f"{n % 8}.{n:020x}" for n in range(300)]
PRODUCER = TraceContext("c" * 32, "d" * 16, 1, "vendor=x")
EXPORTING = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (EXPORTING, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**EXPORTING, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**EXPORTING, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({**EXPORTING, "OTEL_TRACES_EXPORTER": "jaeger"}, False),
    ],
)
def test_the_standard_variables_switch_tracing_on(environment: dict[str, str], wanted: bool) -> None:
    assert configured(environment) == wanted


def test_what_lets_somebody_in_is_a_secret_and_a_tenants_name_is_none() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20canary-1,X-Scope-OrgID=orders",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "Authorization Bearer canary-2",  # malformed: a library quotes it
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:canary%2D3@collector:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1",
    }
    found = set(secrets_in(environment))
    assert found >= {
        "Bearer canary-1",
        "canary-1",
        "canary-2",
        "canary%2D3",
        "canary-3",
        "Authorization Bearer canary-2",
    }
    assert "orders" not in found


def test_without_an_exporter_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys, headrace.observability.traces as t\n"
        "assert t.tracing(app='a', instance='i', version='1') is None\n"
        "assert t.contexts(parent_from_kafka=False).anchor('1.00112233445566778899', None)\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={}, check=False).returncode == 0


def test_a_runs_trace_derives_from_its_id_and_keeps_the_producer() -> None:
    anchor = contexts(EXPORTING).anchor(RUNS[0], PRODUCER)
    assert (anchor.trace_id, anchor.span_id) == (trace_id_of(RUNS[0]), span_id_of(RUNS[0], "start"))
    kept = producer_of(anchor.state)
    assert kept is not None
    assert kept.traceparent == PRODUCER.traceparent


def test_the_producers_trace_goes_on_if_wanted() -> None:
    anchor = contexts(EXPORTING, parent_from_kafka=True).anchor(RUNS[0], PRODUCER)
    assert (anchor.trace_id, anchor.state) == (PRODUCER.trace_id, PRODUCER.state)
    assert anchor.span_id == span_id_of(RUNS[0], "start")


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_the_ratio_samples_the_traces_that_opentelemetry_would(ratio: float) -> None:
    sampling, theirs = Sampling(ratio=ratio), TraceIdRatioBased(ratio)
    for run in RUNS:
        decision = theirs.should_sample(None, int(trace_id_of(run), 16), "start").decision
        assert sampling.flags(run, None) == int(decision is Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize(
    ("sampler", "argument", "unsampled_producer", "nobody", "sampled_producer"),
    [
        ("", "", 0, 1, 1),
        ("parentbased_always_on", "", 0, 1, 1),
        ("always_on", "", 1, 1, 1),
        ("always_off", "", 0, 0, 0),
        ("parentbased_always_off", "", 0, 0, 1),
        ("traceidratio", "0", 0, 0, 0),
        ("parentbased_traceidratio", "0", 0, 0, 1),
        ("parentbased_traceidratio", "nonsense", 0, 1, 1),
        ("unheard_of", "", 1, 1, 1),
    ],
)
def test_the_standard_samplers(
    sampler: str, argument: str, unsampled_producer: int, nobody: int, sampled_producer: int
) -> None:
    environment = {**EXPORTING, "OTEL_TRACES_SAMPLER_ARG": argument} | (
        {"OTEL_TRACES_SAMPLER": sampler} if sampler else {}
    )
    rule = contexts(environment)
    unsampled = TraceContext(PRODUCER.trace_id, PRODUCER.span_id, 0)
    flags = [rule.anchor(RUNS[0], producer).flags for producer in (unsampled, None, PRODUCER)]
    assert flags == [unsampled_producer, nobody, sampled_producer]


def test_without_an_exporter_only_a_producers_decision_is_passed_on() -> None:
    rule = contexts({})
    assert rule.anchor(RUNS[0], None).flags == 0
    assert rule.anchor(RUNS[0], PRODUCER).flags == 1


def test_an_attempt_has_a_span_of_its_own_in_the_runs_trace() -> None:
    anchor = contexts(EXPORTING).anchor(RUNS[0], PRODUCER)
    first = attempt_context(anchor, RUNS[0], "/1/pay", 1)
    assert (first.trace_id, first.flags, first.state) == (anchor.trace_id, anchor.flags, anchor.state)
    others = [attempt_context(anchor, RUNS[0], "/1/pay", 2), attempt_context(anchor, RUNS[0], "/2/pay", 1), anchor]
    assert first.span_id not in {other.span_id for other in others}
    assert attempt_traceparent(RUNS[0], "/1/pay", 1, anchor.traceparent) == first.traceparent


def test_an_attempts_traceparent_needs_no_anchor() -> None:
    context = parse_traceparent(attempt_traceparent(RUNS[0], "/1/pay", 1))
    assert context is not None
    assert (context.trace_id, context.flags) == (trace_id_of(RUNS[0]), 0)


def test_a_run_without_a_source_record_goes_on_in_the_trace_of_who_asked_for_it() -> None:
    anchor = contexts(EXPORTING).anchor(RUNS[0], PRODUCER, from_kafka=False)
    assert anchor == TraceContext(PRODUCER.trace_id, span_id_of(RUNS[0], "start"), 1, PRODUCER.state)
    assert contexts(EXPORTING).anchor(RUNS[0], None, from_kafka=False).trace_id == trace_id_of(RUNS[0])
