"""The table of families: names that Prometheus' own linter accepts, and a page that says the same."""

import re
from pathlib import Path

import pytest

from headrace.observability.metrics import TABLE, Family, Kind

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(headrace_\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)

# promtool's rules (prometheus/client_golang, promlint): base units, no abbreviations, no types in names.
ABBREVIATED = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
NOT_BASE = {
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "kilobytes",
    "megabytes",
    "bits",
    "percent",
}
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


@pytest.mark.parametrize("family", TABLE, ids=lambda family: family.name)
def test_a_name_follows_prometheus_rules(family: Family) -> None:
    words = set(family.full_name.split("_"))
    assert re.fullmatch(r"[a-z][a-z0-9_]*", family.full_name)
    assert not words & (ABBREVIATED | NOT_BASE | TYPES)
    assert family.full_name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.full_name.endswith("_info") == (family.kind is Kind.INFO)
    assert not family.full_name.endswith(("_count", "_sum", "_bucket"))
    assert family.help.endswith(".")
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) and name not in {"le", "quantile"} for name in family.labels)


@pytest.mark.parametrize("family", TABLE, ids=lambda family: family.name)
def test_no_family_is_labelled_by_an_id(family: Family) -> None:
    assert not {"run", "run_id", "key", "offset", "event", "instance"} & set(family.labels) or family.name.startswith(
        "kafka_rebalances"
    )


def test_buckets_rise_and_belong_to_histograms() -> None:
    for family in TABLE:
        assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
        assert list(family.buckets) == sorted(set(family.buckets))


def test_buckets_reach_as_far_as_promised() -> None:
    by_name = {family.name: family.buckets for family in TABLE}
    assert (by_name["run_duration_seconds"][0], by_name["run_duration_seconds"][-1]) == (0.05, 24 * 3600)
    assert (by_name["run_start_delay_seconds"][0], by_name["run_start_delay_seconds"][-1]) == (0.005, 3600)
    assert (by_name["task_duration_seconds"][0], by_name["task_duration_seconds"][-1]) == (0.001, 300)


def test_names_are_given_once() -> None:
    assert len({family.name for family in TABLE}) == len(TABLE)


def test_the_page_shows_the_table() -> None:
    shown = {
        name: (
            kind,
            tuple(re.findall(r"`(\w+)`", labels)),
            text,
            tuple(map(float, re.findall(r"[\d.e+-]+\d|\d", marks))),
        )
        for name, kind, labels, text, marks in ROW.findall(PAGE.read_text())
    }
    assert shown == {
        family.full_name: (
            family.kind,
            family.labels,
            family.help,
            tuple(map(float, family.buckets)),
        )
        for family in TABLE
    }
