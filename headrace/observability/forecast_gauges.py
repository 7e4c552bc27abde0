"""The rows of the `headrace_forecast_*` families. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headrace.observability.forecast import Forecast

Rows = list[tuple[tuple[str, ...], float]]

TASK: Final = "task:"
"""Shares of handlers in the slots are not shown: `task_duration_seconds` tells them, and there may be many."""


def forecast_gauges(forecast: Forecast | None) -> dict[str, Rows]:
    """By family; none while there is no forecast. A bottleneck's series is 0 for each resource that does not limit."""
    if forecast is None:
        return {}
    shown = {use.resource: use.ratio for use in forecast.uses if not use.resource.startswith(TASK)}
    limits = forecast.bottleneck
    resources = dict.fromkeys(shown, 0.0)
    if limits is not None:
        resources[limits.resource] = 1.0
    return {
        "forecast_backlog_drain_seconds": [((each.workflow,), each.drain_s) for each in forecast.workflows],
        "forecast_backlog_breach_seconds": [((each.workflow,), each.breach_s) for each in forecast.workflows],
        "forecast_arrivals_per_second": [((each.workflow,), each.arrivals.per_s) for each in forecast.workflows],
        "forecast_capacity_per_second": [
            ((each.workflow,), each.capacity_per_s) for each in forecast.workflows if each.capacity_per_s is not None
        ],
        "forecast_utilization_ratio": [((resource,), ratio) for resource, ratio in shown.items()],
        "forecast_workers_needed": [] if forecast.workers_needed is None else [((), forecast.workers_needed)],
        "forecast_bottleneck": [((resource,), value) for resource, value in resources.items()],
        "forecast_bottleneck_relief_ratio": [] if limits is None else [((limits.resource,), limits.relief)],
    }
