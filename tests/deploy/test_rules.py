"""Rules under Prometheus' own tool: well-formed, and each alert fires when it should and keeps quiet when it should not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring.alert import ALERTS, Alert, Severity
from tests.deploy.alert_cases import ALWAYS, CASES, Case
from tests.deploy.tool import RULES, promtool
from tests.project.repository import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ("## What it means", "## What to look at", "## What to do")
SEVERITY = {alert.name: alert.severity for alert in ALERTS}


def test_promtool_has_nothing_to_say_about_the_rules() -> None:
    assert "FAILED" not in promtool("check", "rules", "--lint=all", *RULES)


@pytest.mark.parametrize("interval", ["1m", "5m"])
def test_alerts_fire_and_keep_quiet(tmp_path: Path, interval: str) -> None:
    cases = [case for case in CASES if case.interval == interval]
    assert "SUCCESS" in promtool("test", "rules", _written(tmp_path, cases, interval))


def _written(folder: Path, cases: Sequence[Case], interval: str) -> Path:
    """The cases as a file of promtool's."""
    tests = [_test(number, case) for number, case in enumerate(cases)]
    file = folder / "cases.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(rule) for rule in RULES], "evaluation_interval": interval, "tests": tests})
    )
    return file


def _test(number: int, case: Case) -> dict[str, Any]:
    labels = {"__name__": "ALERTS", "alertname": case.alert, "alertstate": "firing", **case.fires}
    labels["severity"] = SEVERITY[case.alert]
    shown = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    expected = [{"labels": f"ALERTS{{{shown}}}", "value": 1}] if _should_fire(case) else []
    return {
        "name": f"{number} {case.alert}",
        "interval": case.interval,
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": case.at,
                "exp_samples": expected,
            }
        ],
    }


def _should_fire(case: Case) -> bool:
    return bool(case.fires) or (case.alert in ALWAYS and not any("build_info" in series for series in case.series))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_has_both_cases_and_a_runbook(alert: Alert) -> None:
    cases = [case for case in CASES if case.alert == alert.name]
    assert {_should_fire(case) for case in cases} == {True, False}
    page = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n")
    assert [section for section in SECTIONS if section not in page] == []
    assert f"**{alert.severity}**" in page


def test_every_page_belongs_to_an_alert_and_is_listed() -> None:
    names = {alert.name for alert in ALERTS}
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == names
    listed = (RUNBOOKS / "README.md").read_text()
    assert [name for name in sorted(names) if f"({name}.md)" not in listed] == []


def test_a_case_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """The harness itself: a quiet story told as a firing one fails."""
    quiet = next(case for case in CASES if not _should_fire(case))
    wrong = Case(quiet.alert, quiet.series, quiet.at, {"job": "shop"}, quiet.interval)
    given = _written(tmp_path, [wrong], wrong.interval)
    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", given)


def test_severities_are_the_two() -> None:
    assert set(SEVERITY.values()) == set(Severity)
