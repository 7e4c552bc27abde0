"""A dashboard: rows of panels, the variables that narrow every query, links; and its JSON for Grafana."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from deploy.monitoring.panel import DATA_SOURCE

if TYPE_CHECKING:
    from deploy.monitoring.panel import Panel

COLUMNS: Final = 24
TAG: Final = "headrace"


@dataclass(frozen=True)
class Row:
    """Panels under one head, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """`uid` stays for ever: links hold it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def json(self) -> dict[str, Any]:
        """What Grafana imports or is provisioned with."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": _links(),
            "templating": {"list": _variables()},
            "panels": self._panels(),
        }

    def _panels(self) -> list[dict[str, Any]]:
        placed: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            placed.append(
                {
                    "id": len(placed) + 1,
                    "type": "row",
                    "title": row.title,
                    "collapsed": False,
                    "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                    "panels": [],
                }
            )
            y += 1
            x = height = 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, height = 0, y + height, 0
                placed.append(panel.json(len(placed) + 1, x, y))
                x += panel.width
                height = max(height, panel.height)
            y += height
        return placed


def _links() -> list[dict[str, Any]]:
    return [
        {"title": "Headrace dashboards", "type": "dashboards", "tags": [TAG], "asDropdown": True, "keepTime": True}
        | {"includeVars": True, "icon": "external link", "targetBlank": False},
        {"title": "Console", "type": "link", "url": "${console}", "icon": "external link", "targetBlank": True},
        {"title": "Runs", "type": "link", "url": "${console}/runs", "icon": "external link", "targetBlank": True},
    ]


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
        _from_label("job", "Job", "label_values(headrace_build_info, job)"),
        _from_label("instance", "Instance", 'label_values(headrace_build_info{job=~"$job"}, instance)'),
        _from_label("workflow", "Workflow", 'label_values(headrace_runs_finished_total{job=~"$job"}, workflow)'),
        {
            "name": "console",
            "label": "Console",
            "description": "Where Headrace's own console is: the address behind the link above.",
            "type": "textbox",
            "query": "http://localhost:8080",
            "current": {"text": "http://localhost:8080", "value": "http://localhost:8080"},
        },
    ]


def _from_label(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
