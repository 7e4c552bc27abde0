"""Helm itself renders the chart: everything off, everything on, and what must be refused.

`scripts/test-helm` builds it where CI=true, while other tests run; anywhere else the one that is installed is taken, or the tests skip.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any, Final

import pytest
import yaml

from headrace.service.api.guard import Guard
from headrace.service.cli import command_line, probe
from headrace.service.settings_source import load
from tests.deploy.tool import DEPLOY, RULES
from tests.project.repository import ROOT

pytestmark = pytest.mark.late(1)

CHART: Final = DEPLOY / "helm" / "headrace"
BUILT: Final = ROOT / ".cache" / "helm"
EVERYTHING: Final[dict[str, Any]] = {
    "secretName": "shop-secrets",
    "env": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
    "createTopics": True,
    "api": {"enabled": True, "tokenSecret": "shop-token"},
    "history": {"urlSecret": "shop-database"},
    "workers": 3,
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "keda": {"enabled": True, "topics": ["orders", "returns"], "lagThreshold": 5_000_000},
    "settings": {
        "app": {"name": "shop"},
        "kafka": {"bootstrap_servers": "kafka-0:9092,kafka-1:9092", "extra": {"retry.backoff.ms": 100}},
        "worker": {"processes": 2, "max_active_runs": 8000, "idle_after": "2s"},
        "telemetry": {"metrics_port": 9999, "series_budget": 2_000_000, "buckets": {"run_duration_seconds": [1, 2.5]}},
    },
    "podAnnotations": {"note": "a: {{ b }}"},
}
SECRETS: Final = {
    "HEADRACE_API__TOKEN": "0123456789abcdef" * 2,
    "HEADRACE_HISTORY__URL": "postgresql://shop:pass@database/shop",
}
"""What the secrets hold that the deployment names."""


@cache
def program() -> str | None:
    """Where it is; waits for one that is being built."""
    if (BUILT / "lock").exists():
        with (BUILT / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
    built = sorted(map(str, BUILT.glob("v*/helm")))
    return os.environ.get("HEADRACE_HELM") or (built[-1] if built else which("helm"))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = program()
    if found is None:
        pytest.skip("no helm: go install helm.sh/helm/v3/cmd/helm@v3.16.4; HEADRACE_HELM names one that is not on PATH")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False)


def rendered(tmp_path: Path, values: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The manifests by kind."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    # A helm that Go builds without its release's flags takes the cluster for Kubernetes 1.20.
    done = helm("template", "shop", str(CHART), "--values", str(file), "--kube-version", "1.30.0")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for document in yaml.safe_load_all(done.stdout):
        if document:
            found.setdefault(document["kind"], []).append(document)
    return found


def test_lint_has_nothing_to_say(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    for values in ({}, EVERYTHING):
        file.write_text(yaml.safe_dump(values))
        done = helm("lint", "--strict", str(CHART), "--values", str(file))
        assert done.returncode == 0, done.stdout
        assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout


def test_the_defaults_are_a_deployment_that_hands_over_before_it_goes(tmp_path: Path) -> None:
    kinds = rendered(tmp_path, {})
    assert sorted(kinds) == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]
    (deployment,) = kinds["Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][0] in {" ".join(name) for name in command_line.names()}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")] == ["/livez", "/readyz"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] > load().settings.worker.shutdown_grace_ms / 1000
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        kinds["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"],
        kinds["Service"][0]["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()


def test_with_everything_on_the_parts_fit_together(tmp_path: Path) -> None:
    kinds = rendered(tmp_path, EVERYTHING)
    (deployment,) = kinds["Deployment"]
    assert "replicas" not in deployment["spec"]  # KEDA's
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.pop("api") == 8080
    assert list(ports.values()) == [9464, 9465, 9466]  # one a worker
    for name, path in (("livenessProbe", "livez"), ("readinessProbe", "readyz")):
        assert container[name]["exec"]["command"] == ["python", "-m", probe.__name__, path, "9464", "3"]
        assert container[name]["timeoutSeconds"] > probe.WITHIN_S
    (monitor,) = kinds["ServiceMonitor"]
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == set(ports)
    services = {each["metadata"]["name"]: each["spec"] for each in kinds["Service"]}
    name = deployment["metadata"]["name"]
    assert {port["name"] for port in services[name]["ports"]} == set(ports)
    assert [(port["port"], port["targetPort"]) for port in services[f"{name}-api"]["ports"]] == [(8080, "api")]
    assert {variable["name"] for variable in container["env"]} >= set(EVERYTHING["env"])
    assert container["args"][-2:] == ["--workers", "3"]

    toml = next(each["data"]["headrace.toml"] for each in kinds["ConfigMap"] if "headrace.toml" in each["data"])
    assert tomllib.loads(toml)["app"]["name"] == "shop"
    (tmp_path / "headrace.toml").write_text(toml)
    secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert secrets["HEADRACE_API__TOKEN"] == {"name": "shop-token", "key": "token"}
    assert secrets["HEADRACE_HISTORY__URL"] == {"name": "shop-database", "key": "url"}
    variables = {each["name"]: each.get("value", SECRETS.get(each["name"], "")) for each in container["env"]}
    ours = {name: value for name, value in variables.items() if name.startswith("HEADRACE_")}
    settings = load(file=tmp_path / "headrace.toml", environ=ours).settings
    assert settings.kafka.bootstrap_servers == ("kafka-0:9092", "kafka-1:9092")
    assert (settings.api.host, settings.api.port, settings.api.auth) == ("0.0.0.0", 8080, "token")
    Guard(settings.api)  # else a start would refuse them
    assert settings.kafka.extra["retry.backoff.ms"] == 100
    assert (settings.worker.max_active_runs, settings.worker.idle_after_ms) == (8000, 2000)
    assert (settings.telemetry.metrics_host, settings.telemetry.metrics_port) == ("0.0.0.0", next(iter(ports.values())))
    assert (settings.telemetry.series_budget, settings.telemetry.bounds) == (
        2_000_000,
        {"run_duration_seconds": (1, 2.5)},
    )

    (scaled,) = kinds["ScaledObject"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert [(each["metadata"]["topic"], each["metadata"]["consumerGroup"]) for each in scaled["spec"]["triggers"]] == [
        ("orders", "shop.router"),
        ("returns", "shop.router"),
    ]
    assert {each["metadata"]["lagThreshold"] for each in scaled["spec"]["triggers"]} == {"5000000"}
    (rule,) = kinds["PrometheusRule"]
    assert rule["spec"]["groups"] == [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    boards = [each for each in kinds["ConfigMap"] if each["metadata"]["labels"].get("grafana_dashboard")]
    assert len(boards) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"replica": 3},
        {"api": {"token": "x"}},
        {"history": {"url": "x"}},
        {"workers": 0},
        {"createTopics": "yes"},
        {"keda": {"topics": "orders"}},
        {"image": {"tags": "1"}},
    ],
)
def test_values_that_the_schema_does_not_have_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(wrong))
    done = helm("template", "shop", str(CHART), "--values", str(file), "--kube-version", "1.30.0")
    assert done.returncode != 0
    assert "schema" in done.stderr


def test_an_api_for_others_without_a_token_is_refused() -> None:
    done = helm("template", "shop", str(CHART), "--set", "api.enabled=true", "--kube-version", "1.30.0")
    assert done.returncode != 0
    assert "api.tokenSecret is empty" in done.stderr
