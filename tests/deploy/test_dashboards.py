"""Dashboards and rules as they are checked in: generated, complete, and about metrics that exist."""

import itertools
import json
import re
from typing import Any

import pytest

from deploy.monitoring.__main__ import DASHBOARDS, files
from deploy.monitoring.metric import select
from deploy.monitoring.panel import Unit
from deploy.monitoring.unused import UNUSED
from headrace.observability.metrics import TABLE
from tests.deploy.promql import families_in
from tests.deploy.tool import DEPLOY

BOARDS = [pytest.param(dashboard.json(), id=dashboard.uid) for dashboard in DASHBOARDS]


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_what_is_checked_in_is_what_is_generated() -> None:
    for name, text in files().items():
        assert (DEPLOY / name).read_text() == text, f"{name}: run `python -m deploy.monitoring`"
    assert {f"grafana/dashboards/{file.name}" for file in (DEPLOY / "grafana" / "dashboards").iterdir()} <= set(files())


@pytest.mark.parametrize("board", BOARDS)
def test_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in set(Unit)
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]


@pytest.mark.parametrize("board", BOARDS)
def test_numbers_are_given_once_and_panels_do_not_overlap(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


@pytest.mark.parametrize("board", BOARDS)
def test_every_query_is_narrowed_by_variables_that_are_there(board: dict[str, Any]) -> None:
    there = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "job", "instance", "workflow", "console"} <= there
    for panel in panels(board):
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval", "__range"}
            assert {"job", "instance"} <= used <= there, target["expr"]
    assert any(link["url"] == "${console}" for link in board["links"] if link["type"] == "link")


@pytest.mark.parametrize("board", BOARDS)
def test_what_a_click_opens_is_a_page_of_the_console(board: dict[str, Any]) -> None:
    linked = [link["url"] for link in board["links"] if link["type"] == "link"]
    for panel in panels(board):
        config = panel["fieldConfig"]
        properties = [each for override in config["overrides"] for each in override["properties"]]
        links = [
            *config["defaults"].get("links", ()),
            *(link for each in properties if each["id"] == "links" for link in each["value"]),
        ]
        linked += [link["url"] for link in links]
        for label in re.findall(r"labels\.(\w+)", str(links)):
            assert all(f"{{{{{label}}}}}" in target["legendFormat"] for target in panel["targets"]), panel["title"]
    for url in linked:
        address, _, page = url.partition("/")
        assert address == "${console}"
        assert page.partition("?")[0] in {"", "runs", "approvals", "schedules", "dead-letters"}


def test_a_metric_or_label_that_is_not_there_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        select("runs_activ")
    with pytest.raises(KeyError):
        select("runs_active", status="running")
    with pytest.raises(KeyError):
        select("run_duration_seconds_count", le="5.0")


def test_exemplars_are_asked_for_where_users_click() -> None:
    clicked: set[str] = set()
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard.json()):
            for target in panel["targets"]:
                clicked |= families_in(target["expr"]) if target["exemplar"] else set()
    assert {name.removeprefix("headrace_") for name in clicked} == {
        "run_duration_seconds",
        "run_start_delay_seconds",
        "run_result_delay_seconds",
        "task_duration_seconds",
    }


def test_every_family_is_shown_or_left_out_for_a_reason() -> None:
    shown = {
        name
        for dashboard in DASHBOARDS
        for panel in panels(dashboard.json())
        for target in panel["targets"]
        for name in families_in(target["expr"])
    }
    assert {family.full_name for family in TABLE} - shown == set(UNUSED)
    assert all(reason.endswith(".") for reason in UNUSED.values())


def test_the_checked_in_dashboards_are_json_that_grafana_takes() -> None:
    for file in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        board = json.loads(file.read_text())
        assert board["uid"] == file.stem
        assert len(board["uid"]) <= 40  # Grafana's limit
        assert board["schemaVersion"] >= 36
