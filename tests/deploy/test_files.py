"""Compose, Docker, Grafana's provisioning, the chart: what can be held against the product without running them."""

import json
import re
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headrace.service.api.guard import Guard
from headrace.service.cli import command_line, probe
from headrace.service.settings_source import known_keys, load, variable
from tests.deploy.tool import DEPLOY, promtool
from tests.project.repository import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CHART = DEPLOY / "helm" / "headrace"
VARIABLES = {variable(key.name) for key in known_keys()}


def settings_in(text: str) -> set[str]:
    """Variables of ours."""
    return set(re.findall(r"\bHEADRACE_[A-Z]+__[A-Z_]+\b", text))


@pytest.mark.parametrize("file", sorted(DEPLOY.rglob("*")), ids=lambda file: str(file.relative_to(DEPLOY)))
def test_every_setting_that_a_file_sets_is_one(file: Path) -> None:
    if file.is_file() and file.suffix != ".pyc":
        assert settings_in(file.read_text()) <= VARIABLES


def test_compose_has_all_parts_and_they_fit_together() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"kafka", "headrace", "postgres", "prometheus", "grafana", "jaeger"}
    volumes = {
        mount.split(":")[0]
        for service in services.values()
        for mount in service.get("volumes", ())
        if mount[0] not in "./"
    }
    assert volumes == set(COMPOSE["volumes"])
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for mount in service.get("volumes", ()):
            if mount.startswith("."):
                assert (DEPLOY / mount.split(":")[0]).exists(), mount
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "for this machine alone"
    headrace = services["headrace"]
    assert headrace["read_only"]
    api = load(environ={name: each for name, each in headrace["environment"].items() if "__" in name}).settings.api
    Guard(api)  # else a start would refuse them
    assert headrace["ports"] == [f"127.0.0.1:{api.port}:{api.port}"]  # it asks for no token
    assert api.allowed_hosts == ("localhost",)
    assert "{trace_id}" in api.trace_url
    assert headrace["cap_drop"] == ["ALL"]
    assert headrace["command"][:2] == ["serve", "/app"]
    database = urlsplit(headrace["environment"]["HEADRACE_HISTORY__URL"])
    postgres = services["postgres"]["environment"]
    assert (database.hostname, database.path) == ("postgres", f"/{postgres['POSTGRES_DB']}")
    assert database.username == postgres["POSTGRES_USER"]
    assert headrace["environment"]["PGPASSWORD"].startswith(f"${{{COMPOSE['secrets']['postgres']['environment']}:")
    assert (DEPLOY.parent / headrace["build"]["dockerfile"]).is_file()
    health = ["CMD", "python", "-m", probe.__name__, "livez", "9464", headrace["command"][-1]]
    assert headrace["healthcheck"]["test"] == health


def test_compose_can_make_what_it_describes() -> None:
    """Not started here; what is known to be refused, or to be lost, is not asked for."""
    services = COMPOSE["services"]
    from_variables = {name for name, secret in COMPOSE["secrets"].items() if "environment" in secret}
    for name, service in services.items():
        assert not (service.get("read_only") and from_variables & set(service.get("secrets", ()))), name
    volumes = {mount.partition(":")[2] for mount in services["kafka"]["volumes"]}
    assert services["kafka"]["environment"]["KAFKA_LOG_DIRS"] in volumes


def test_prometheus_takes_its_configuration_and_looks_at_both_workers() -> None:
    assert "SUCCESS" in promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yaml")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == "headrace"]
    workers = COMPOSE["services"]["headrace"]["command"][-1]
    assert job["static_configs"] == [{"targets": [f"headrace:{9464 + index}" for index in range(int(workers))]}]


def test_grafana_is_provisioned_with_sources_that_are_there_and_our_dashboards() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "headrace.yaml").read_text())["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    assert {source["type"] for source in sources} == {"prometheus", "jaeger"}
    for source in sources:
        assert re.fullmatch(r"http://(\w+):\d+", source["url"])[1] in COMPOSE["services"]  # pyright: ignore[reportOptionalSubscript]
    (exemplars,) = by_uid["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (exemplars["name"], exemplars["datasourceUid"]) == ("trace_id", "jaeger")
    (provider,) = yaml.safe_load((folder / "dashboards" / "headrace.yaml").read_text())["providers"]
    mounts = COMPOSE["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


def test_the_image_is_made_of_files_that_are_there_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+( AS \w+)?$", text, re.MULTILINE)
    assert len(stages) == 2
    copied = [part for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for part in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text()
    assert [name for name in copied if f"!{name}\n" not in let_in] == []
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    assert "--require-hashes" in text
    assert json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])[0] in {
        " ".join(name) for name in command_line.names()
    }


def needed_at_run_time() -> set[str]:
    """All distributions that an install without extras brings."""
    found = set[str]()

    def add(requirements: list[str]) -> None:
        for requirement in map(Requirement, requirements):
            name = canonicalize_name(requirement.name)
            if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(name)
                add(requires(name) or [])

    add(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    return found


def test_the_image_throws_away_nothing_that_is_needed() -> None:
    (thrown,) = re.findall(r"pip uninstall --yes ([^\\\n]+)", (DEPLOY / "Dockerfile").read_text())
    assert {"hatchling", "pip"} <= set(thrown.split())
    assert set(thrown.split()) & needed_at_run_time() == set()


@pytest.mark.parametrize(
    "image",
    [
        *(service["image"] for service in COMPOSE["services"].values() if "build" not in service),
        *re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE),
    ],
)
def test_an_image_is_named_with_its_version(image: str) -> None:
    name, colon, tag = image.replace("${PYTHON}", "3.12").rpartition(":")
    assert (bool(name), colon) == (True, ":")
    assert re.search(r"\d", tag), f"{image} is another one tomorrow"


def test_the_dockerfile_does_what_linters_ask_for() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert not re.search(r"^ADD |^MAINTAINER |\bsudo\b|apt-get|curl|wget", text, re.MULTILINE)
    assert text.count("\nUSER ") == 1
    last = text.rpartition("\nFROM ")[2]
    assert "\nUSER " in last
    assert last.index("\nUSER ") < last.index("\nENTRYPOINT ")
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        assert len(re.findall(rf"^{name}\b", last, re.MULTILINE)) == 1
    for form in re.findall(r"^ *(?:ENTRYPOINT|CMD) (.+)$", last, re.MULTILINE):
        assert isinstance(json.loads(form), list)  # no shell in between: signals arrive
    assert re.findall(r"^WORKDIR (\S+)", text, re.MULTILINE) == ["/src", "/tmp"]


def test_the_chart_is_of_this_version_and_its_values_obey_their_schema() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["apiVersion"] == "v2"
    assert chart["appVersion"] == version("headrace")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) <= set(schema["properties"])
    assert fits(values, schema, schema) == []
    assert fits({**values, "replica": 3}, schema, schema)
    assert fits({**values, "workers": 0}, schema, schema)
    assert fits({**values, "createTopics": "yes"}, schema, schema)


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "values") -> list[str]:
    """What is wrong, by the words of JSON Schema that our schema uses."""
    if "$ref" in schema:
        return fits(value, root["definitions"][schema["$ref"].rpartition("/")[2]], root, at)
    wrong: list[str] = []
    names = schema.get("type", [])
    kinds = tuple(TYPES[name] for name in ([names] if isinstance(names, str) else names))
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        return [f"{at} is no {names}"]
    if "enum" in schema and value not in schema["enum"]:
        wrong.append(f"{at} is none of {schema['enum']}")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        wrong.append(f"{at} does not match {schema['pattern']}")
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        wrong.append(f"{at} is out of range")
    if isinstance(value, list):
        for number, each in enumerate(value):
            wrong += fits(each, schema.get("items", {}), root, f"{at}[{number}]")
    if isinstance(value, dict):
        wrong += [f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            wrong += [f"{at}.{name} is unknown"] if inner is False else fits(each, inner, root, f"{at}.{name}")
    return wrong


def test_the_chart_uses_values_that_are_there() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for template in sorted((CHART / "templates").iterdir()):
        text = template.read_text()
        for path in re.findall(r"\.Values((?:\.\w+)+)", text):
            found: Any = values
            for name in path.strip(".").split("."):
                assert name in found, f"{template.name}: .Values{path}"
                found = found[name]
        named = set(re.findall(r'include "([\w.]+)"', text))
        assert named <= set(re.findall(r'define "([\w.]+)"', (CHART / "templates" / "_helpers.tpl").read_text()))
        opened = len(re.findall(r"\{\{-? *(?:if|range|with|define)\b", text))
        assert opened == len(re.findall(r"\{\{-? *end\b", text)), template.name
