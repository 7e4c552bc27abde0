"""A panel: what it asks Prometheus, what it means, and its JSON for Grafana."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_REFS: Final = "ABCDEFGHIJKL"
RUNS_OF_SERIES: Final = "runs?workflow=${__field.labels.workflow}"
"""The console's list of the runs of the workflow that was clicked."""


class Unit(StrEnum):
    """Grafana's names of units."""

    SECONDS = "s"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    SHARE = "percentunit"
    PER_SECOND = "ops"
    COUNT = "short"
    STATE = "none"


@dataclass(frozen=True)
class Query:
    """One expression. `legend` is Grafana's template, such as `{{workflow}}`."""

    expr: str
    legend: str = ""
    exemplars: bool = False


def console_link(page: str) -> dict[str, Any]:
    """A click that opens a page of the console, at the address of the dashboard's variable."""
    return {"title": "In the console", "url": f"${{console}}/{page}", "targetBlank": True}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Common to all kinds. `width` of 24 columns, `height` in rows of 30 pixels. `console`: the page of the console that a click
    opens, "" for none; with Grafana's variables for the clicked series.
    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    console: str = ""

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Grafana's model; `number` is unique in the dashboard."""
        return {
            "id": number,
            "title": self.title,
            "description": self.description,
            "type": self._type(),
            "datasource": DATA_SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(ref, query) for ref, query in zip(_REFS, self.queries, strict=False)],
            "fieldConfig": {
                "defaults": {"unit": self.unit.value, **self._links(), **self._defaults()},
                "overrides": self._overrides(),
            },
            "options": self._options(),
            **self._more(),
        }

    def _target(self, ref: str, query: Query) -> dict[str, Any]:
        return {
            "refId": ref,
            "datasource": DATA_SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "exemplar": query.exemplars,
            **self._how(),
        }

    def _links(self) -> dict[str, Any]:
        return {} if not self.console else {"links": [console_link(self.console)]}

    def _type(self) -> str:
        raise NotImplementedError

    def _how(self) -> dict[str, Any]:
        return {"range": True, "instant": False}

    def _defaults(self) -> dict[str, Any]:
        return {}

    def _overrides(self) -> list[dict[str, Any]]:
        return []

    def _options(self) -> dict[str, Any]:
        return {}

    def _more(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Over time. `stacked`: areas on top of each other, for parts of a whole."""

    stacked: bool = False

    def _type(self) -> str:
        return "timeseries"

    def _defaults(self) -> dict[str, Any]:
        return {
            "min": 0,
            "custom": {
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 5,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
            },
        }

    def _options(self) -> dict[str, Any]:
        return {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True, kw_only=True)
class Number(Panel):
    """One figure, now. `bad_from`: red from this value on; `good_from`: red below it."""

    width: int = 4
    height: int = 4
    bad_from: float | None = None
    good_from: float | None = None

    def _type(self) -> str:
        return "stat"

    def _how(self) -> dict[str, Any]:
        return {"range": False, "instant": True}

    def _defaults(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.bad_from is not None:
            steps.append({"color": "red", "value": self.bad_from})
        if self.good_from is not None:
            steps = [{"color": "red", "value": None}, {"color": "green", "value": self.good_from}]
        return {"thresholds": {"mode": "absolute", "steps": steps}, "noValue": "none"}

    def _options(self) -> dict[str, Any]:
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
        }


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """Rows by label, a column for each query: `legend` is its head. `units` of columns that differ from the panel's.

    `pages`: the page of the console that a click on a column opens.
    """

    width: int = 24
    height: int = 10
    units: dict[str, Unit] = field(default_factory=dict[str, Unit])
    pages: dict[str, str] = field(default_factory=dict[str, str])

    def _type(self) -> str:
        return "table"

    def _how(self) -> dict[str, Any]:
        return {"range": False, "instant": True, "format": "table"}

    def _overrides(self) -> list[dict[str, Any]]:
        return [
            {"matcher": {"id": "byName", "options": head}, "properties": [{"id": "unit", "value": unit.value}]}
            for head, unit in self.units.items()
        ] + [
            {
                "matcher": {"id": "byName", "options": head},
                "properties": [{"id": "links", "value": [console_link(page)]}],
            }
            for head, page in self.pages.items()
        ]

    def _more(self) -> dict[str, Any]:
        many = len(self.queries) > 1  # the column of a single query has no letter
        heads = {
            f"Value #{ref}" if many else "Value": query.legend for ref, query in zip(_REFS, self.queries, strict=False)
        }
        return {
            "transformations": [
                {"id": "merge", "options": {}},
                {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": heads}},
            ]
        }
