"""One trace id for a run, wherever one meets it: its log lines, `run get`, its spans, the exemplar of a histogram, what it emits."""

from __future__ import annotations

import json
import re
import signal
import urllib.request

import pytest

from tests.observability.otlp_receiver import OtlpReceiver
from tests.service.cli.conftest import Headrace, headrace, here
from tests.service.cli.test_running import Starting, app, ended, starting

__all__ = ["app", "headrace", "here", "starting"]  # fixtures

PRODUCER = "0af7651916cd43dd8448eb211c80319c"


def exemplars(address: str) -> set[str]:
    request = urllib.request.Request(f"{address}/metrics", headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return set(re.findall(r'# \{trace_id="(\w+)"\}', answer.read().decode()))


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_run_has_one_trace_id_everywhere(
    headrace: Headrace, starting: Starting, app: str, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    monkeypatch.setenv("HEADRACE_TELEMETRY__PARENT_FROM_KAFKA", str(goes_on).lower())
    monkeypatch.setenv("HEADRACE_TELEMETRY__LOG_LEVEL", "debug")
    monkeypatch.setenv("HEADRACE_TELEMETRY__LOG_FORMAT", "json")
    with OtlpReceiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        service = starting("dev", app, "--metrics-port", "0")
        service.until_started()
        header = f"traceparent=00-{PRODUCER}-b7ad6b7169203331-01"
        event = ("event", "publish", "greetings", "--data", '{"name":"Ada"}', "--key", "Ada", "--header", header)
        assert headrace(*event).code == 0
        service.until(lambda: bool(ended(headrace)))
        (run,) = ended(headrace)
        detail = headrace("run", "get", run, "-o", "json").json
        metrics = re.search(r"metrics +(http://[\w.:]+)", service.err)
        assert metrics is not None
        shown = exemplars(metrics[1])
        tail = ("event", "tail", "greetings.sent", "--from", "start", "--no-follow", "-o", "jsonl")
        service.until(lambda: headrace(*tail).out != "")
        emitted = headrace(*tail).out
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        spans = collector.spans()
    assert detail["producer_trace_id"] == PRODUCER
    trace = detail["trace_id"]
    assert (trace == PRODUCER) is goes_on
    assert {span.trace_id.hex() for span in spans} == {trace}
    assert {"start", "end"} <= {span.name.split()[0] for span in spans}
    lines = [json.loads(line) for line in service.err.splitlines() if line.startswith("{")]
    of_run = [line for line in lines if line.get("run_id") == run and line["event"] != "timer.armed"]
    assert [line for line in of_run if line.get("trace_id") != trace] == []
    attempts = {span.span_id.hex() for span in spans if span.name.startswith("attempt ")}
    assert attempts
    assert {line["span_id"] for line in of_run if "attempt" in line} == attempts
    assert shown == {trace}
    assert f"00-{trace}-" in emitted
