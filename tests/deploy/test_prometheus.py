"""Prometheus itself scrapes two workers under load: every query of every dashboard has data, every name in rules is real."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.monitoring.__main__ import DASHBOARDS
from headrace.observability.metrics import TABLE, Kind
from headrace.topics.log import NewRecord
from tests.deploy.prometheus import Prometheus
from tests.deploy.promql import families_in, grouped, recorded, selectors
from tests.deploy.tool import RULES, promtool
from tests.kafka_broker.broker import KafkaBroker
from tests.observability.otlp_receiver import OtlpReceiver
from tests.project.repository import ROOT
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation, shared_station, station
from tests.service.end_to_end.event import event
from tests.service.end_to_end.instance import status_of
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.test_workers import got
from tests.service.end_to_end.waiting import eventually_now

__all__ = ["shared_station", "station"]  # fixtures

APP: Final = Path(__file__).parent / "apps" / "watched.py"
JOB: Final = "shop"
VARIABLES: Final = {"$job": ".*", "$instance": ".*", "$workflow": ".*", "$__rate_interval": "5m"}
FROM_OUTSIDE: Final = {"job", "instance", "app", "worker", "le"}
"""Labels that Prometheus, the discovery document and histograms add."""
WHEN_IT_HAPPENS: Final = {"partitions_stopped", "forecast_bottleneck_relief_ratio"}
"""Without a sample while nothing is wrong."""


def queries() -> set[str]:
    """All expressions of all dashboards, with Grafana's variables replaced."""
    found: set[str] = set()
    for dashboard in DASHBOARDS:
        for panel in dashboard.json()["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                assert "$" not in expression
                found.add(expression)
    return found


def rule_expressions() -> list[str]:
    return [
        rule["expr"]
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


@asynccontextmanager
async def traffic(view: View) -> AsyncIterator[None]:
    """Orders, events that nobody wants, and no events at all, until the end."""
    over = anyio.Event()

    async def publish() -> None:
        number = 0
        while not over.is_set():
            records = [event("order", {"id": number + each}) for each in range(20)]
            if not number:
                records.append(event("slow", {"id": 0}))
            records += [event("question", {"id": number}), event("nobody", {}), NewRecord(value=b"no event")]
            await view.publish("in", records, partition=number // 20 % 2)
            number += 20
            with anyio.move_on_after(0.2):
                await over.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(publish)
        try:
            yield
        finally:
            over.set()


async def until_no_query_is_empty(prometheus: Prometheus, apis: list[str]) -> None:
    """`apis`: addresses that are asked meanwhile, for something that is there and for something that is not."""
    rare = {f"headrace_{name}" for name in WHEN_IT_HAPPENS}
    waiting = sorted(expression for expression in queries() if not families_in(expression) <= rare)

    def look() -> bool:
        for api in apis:
            got(f"{api}/api/v1/workflows")
            assert status_of(f"{api}/api/v1/nothing") == 404
        waiting[:] = [expression for expression in waiting if not prometheus.values(expression)]
        return not waiting

    await eventually_now(look, lambda: "data for:\n" + "\n".join(waiting) + prometheus.story)


def check_names(scrapes: list[str]) -> None:
    """Each metric in dashboards and rules is in a scrape, with the labels that are asked for."""
    labels: dict[str, set[str]] = {}
    for scrape in scrapes:
        for metric in text_string_to_metric_families(scrape):
            labels.setdefault(metric.name, set())
            for sample in metric.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
    made = {rule["record"] for file in RULES for rule in rules_of(file) if "record" in rule}
    for expression in [*queries(), *rule_expressions()]:
        every = set(FROM_OUTSIDE)
        assert recorded(expression) <= made, expression
        for name, matchers in selectors(expression):
            known = name in labels or name.removeprefix("headrace_") in WHEN_IT_HAPPENS
            assert known, f"{name} in {expression}"
            own = labels.get(name, set()) or labels_of(name)
            assert set(matchers) <= own | FROM_OUTSIDE, expression
            every |= own
        assert grouped(expression) <= every | {"workflow"}, expression


def rules_of(file: Path) -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def labels_of(name: str) -> set[str]:
    return next((set(family.labels) for family in TABLE if family.full_name == name), set())


def check_families(scrapes: list[str]) -> None:
    """Everything in the table has been emitted by at least one of the workers."""
    sampled = {
        sample.name for scrape in scrapes for each in text_string_to_metric_families(scrape) for sample in each.samples
    }
    for family in TABLE:
        name = family.full_name + ("_count" if family.kind is Kind.HISTOGRAM else "")
        if family.name not in WHEN_IT_HAPPENS:
            assert name in sampled


@pytest.mark.slow
async def test_two_workers_under_load_fill_every_dashboard(
    kafka: KafkaBroker, station: MakeStation, tmp_path: Path
) -> None:
    discovery = tmp_path / "discovery.json"
    backend = Backend("kafka", kafka.bootstrap_servers)
    history = f"sqlite:///{discovery.parent / 'history.sqlite'}"
    place: Station = station(
        backend, APP, worker__processes=2, telemetry__discovery_file=discovery, history__url=history
    )
    with OtlpReceiver() as receiver, Prometheus(tmp_path, discovery, job=JOB) as prometheus:
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRACES_SAMPLER": "always_on"}
        place.spawn(env=traces | {"HEADRACE_API__ENABLED": "true", "HEADRACE_API__PORT": "0"})
        await eventually_now(
            lambda: prometheus.values("count(headrace_build_info)") == [2],
            lambda: place.now.stderr[-3000:] + prometheus.story,
        )
        apis: list[str] = []

        def listening() -> bool:
            apis[:] = re.findall(r"^  console  (\S+)$", place.instances[0].stderr, re.MULTILINE)
            return len(apis) == 2

        await eventually_now(listening, lambda: place.now.stderr[-3000:])
        async with place.view() as view, traffic(view):
            third = await place.spawn(
                env=traces, worker__processes=1, telemetry__discovery_file=tmp_path / "third.json"
            ).ready()  # partitions move to it, and back
            assert third.stop() == 0
            await until_no_query_is_empty(prometheus, apis)
            await eventually_now(lambda: clicked(prometheus) == CLICKED, lambda: f"exemplars: {clicked(prometheus)}")
        targets = re.findall(r'"([\d.]+:\d+)"', discovery.read_text())
        assert len(targets) == 2
        scrapes = [got(f"http://{target}/metrics").decode() for target in targets]
        for scrape in scrapes:
            assert promtool("check", "metrics", given=scrape.encode()) == ""
        check_names(scrapes)
        check_families(scrapes)
        await eventually_now(lambda: "HeadraceDeadLetters" in alerts(prometheus), lambda: f"only {alerts(prometheus)}")
        await eventually_now(  # on a busy machine a scrape may take too long, and the next one does not
            lambda: "HeadraceMetricsAbsent" not in alerts(prometheus), "an answer of the workers to Prometheus"
        )
    assert place.instances[0].stop() == 0


def alerts(prometheus: Prometheus) -> set[str]:
    """Those that are pending or fire."""
    asked = prometheus.ask("alerts") or {"alerts": ()}
    return {alert["labels"]["alertname"] for alert in asked["alerts"]}


CLICKED: Final = {"run_duration", "run_start_delay", "run_result_delay", "task_duration"}


def clicked(prometheus: Prometheus) -> set[str]:
    """The histograms whose exemplars Prometheus has."""
    found = prometheus.ask("query_exemplars", query='{__name__=~"headrace_.+_bucket"}', start="0", end="9999999999")
    names = [series["seriesLabels"]["__name__"] for series in found or ()]
    return {name.removeprefix("headrace_").removesuffix("_seconds_bucket") for name in names}


def test_values_of_closed_labels_are_words_that_the_page_lists() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    closed = {"state", "status", "reason", "result", "event", "trigger", "kind"}
    asked = {
        (label, word)
        for expression in [*queries(), *rule_expressions()]
        for _, matchers in selectors(expression)
        for label, value in matchers.items()
        if label in closed
        for word in value.split("|")
    }
    assert len(asked) > 5
    assert [f"{label}={word}" for label, word in sorted(asked) if f"`{word}`" not in page] == []
