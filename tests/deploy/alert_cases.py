"""For each alert a story in which it fires, and one near to it in which it keeps quiet. Prometheus' own notation for series:

`0+2x90` begins at 0 and rises by 2 ninety times, `5x9` stays, `_x3` is three gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Case:
    """`fires`: the labels of the alert, `severity` aside; none: it keeps quiet. `at`: when it is looked at."""

    alert: str
    series: dict[str, str]
    at: str
    fires: dict[str, str] = field(default_factory=dict[str, str])
    interval: str = "1m"


WORKFLOW: Final = {"job": "shop", "workflow": "fulfil"}
TOPIC: Final = {"job": "shop", "topic": "orders"}


def finished(**values: str) -> dict[str, str]:
    return {
        f'headrace_runs_finished_total{{job="shop", instance="a", workflow="fulfil", status="{status}"}}': numbers
        for status, numbers in values.items()
    }


def starts(in_time: str, all_: str) -> dict[str, str]:
    name, labels = "headrace_run_start_delay_seconds", 'job="shop", instance="a", workflow="fulfil"'
    return {f'{name}_bucket{{{labels}, le="5.0"}}': in_time, f"{name}_count{{{labels}}}": all_}


def gauge(name: str, numbers: str, **labels: str) -> dict[str, str]:
    written = ", ".join(f'{key}="{value}"' for key, value in {"job": "shop", "instance": "a", **labels}.items())
    return {f"headrace_{name}{{{written}}}": numbers}


CASES: Final = (
    Case(
        "HeadraceRunFailureBudgetBurnFast",
        finished(succeeded="0+8x90", failed="0+1x90", compensated="0+1x90"),
        "80m",
        WORKFLOW,
    ),
    Case(
        "HeadraceRunFailureBudgetBurnFast", finished(succeeded="0+99x90", failed="0+1x90", cancelled="0+90x90"), "80m"
    ),
    Case("HeadraceRunFailureBudgetBurnFast", finished(succeeded="0x90", failed="0x20 5x70"), "80m"),  # too few to say
    Case("HeadraceRunFailureBudgetBurnFast", finished(succeeded="0+8x90", failed="0+8x20 168x90"), "80m"),  # it is over
    Case(
        "HeadraceRunFailureBudgetBurnSlow",
        finished(succeeded="0+19x400", failed="0+1x400"),
        "26h",
        WORKFLOW,
        interval="5m",
    ),
    Case("HeadraceRunFailureBudgetBurnSlow", finished(succeeded="0+399x400", failed="0+2x400"), "26h", interval="5m"),
    Case("HeadraceStartDelayBudgetBurnFast", starts("0+8x90", "0+10x90"), "80m", WORKFLOW),
    Case("HeadraceStartDelayBudgetBurnFast", starts("0+99x90", "0+100x90"), "80m"),
    Case("HeadraceStartDelayBudgetBurnSlow", starts("0+19x400", "0+20x400"), "26h", WORKFLOW, interval="5m"),
    Case("HeadraceStartDelayBudgetBurnSlow", starts("0+399x400", "0+400x400"), "26h", interval="5m"),
    Case(
        "HeadraceLagGrowing",
        gauge("kafka_consumer_lag_seconds", "0+30x60", topic="orders", partition="0", group="shop.router"),
        "40m",
        TOPIC,
    ),
    Case(
        "HeadraceLagGrowing",
        gauge("kafka_consumer_lag_seconds", "600x60", topic="orders", partition="0", group="shop.router"),
        "40m",
    ),
    Case(
        "HeadraceLagGrowing",
        gauge("kafka_consumer_lag_seconds", "0+1x60", topic="orders", partition="0", group="shop.router"),
        "40m",
    ),
    Case(
        "HeadraceBacklogWillBreach",
        gauge("forecast_backlog_breach_seconds", "9000x5 1200x20", workflow="fulfil"),
        "15m",
        WORKFLOW,
    ),
    Case("HeadraceBacklogWillBreach", gauge("forecast_backlog_breach_seconds", "+Inf+0x20", workflow="fulfil"), "15m"),
    Case("HeadraceBacklogWillBreach", gauge("forecast_backlog_breach_seconds", "9000x5 1200x2 9000x20"), "15m"),
    Case(
        "HeadraceNoPartitions",
        gauge("kafka_partitions_assigned", "0x20", group="shop.owners"),
        "10m",
        {"job": "shop", "group": "shop.owners"},
    ),
    Case(
        "HeadraceNoPartitions",
        gauge("kafka_partitions_assigned", "0x20", group="shop.owners")
        | gauge("kafka_partitions_assigned", "64x20", group="shop.owners", instance="b")
        | gauge("kafka_partitions_assigned", "0x20", group="shop.router"),
        "10m",
    ),
    Case(
        "HeadraceRebalanceStorm",
        gauge("kafka_rebalances_total", "0+1x60", group="shop.members", event="assigned"),
        "30m",
        {"job": "shop", "group": "shop.members"},
    ),
    Case(
        "HeadraceRebalanceStorm",
        gauge("kafka_rebalances_total", "0x10 4x50", group="shop.members", event="assigned")
        | gauge("kafka_rebalances_total", "0+2x60", group="shop.members", event="revoked"),
        "20m",
    ),
    Case(
        "HeadraceRunStuck",
        gauge("runs_active", "3x60", workflow="fulfil", state="running")
        | gauge("task_attempts_total", "7x60", workflow="fulfil", task="pay", result="succeeded"),
        "45m",
        WORKFLOW,
    ),
    Case(
        "HeadraceRunStuck",
        gauge("runs_active", "3x60", workflow="fulfil", state="running")
        | gauge("runs_active", "9x60", workflow="wait", state="waiting")
        | gauge("task_attempts_total", "0+1x60", workflow="fulfil", task="pay", result="succeeded"),
        "45m",
    ),
    Case(
        "HeadraceDeadLetters",
        gauge("dead_letters_total", "0x20 1x40", topic="orders", workflow="", reason="decode"),
        "30m",
        {**TOPIC, "reason": "decode"},
    ),
    Case(
        "HeadraceDeadLetters", gauge("dead_letters_total", "8x60", topic="orders", workflow="", reason="decode"), "50m"
    ),
    Case(
        "HeadraceTimerLate",
        {
            'headrace_timer_fire_delay_seconds_bucket{job="shop", le="5.0"}': "0+1x60",
            'headrace_timer_fire_delay_seconds_bucket{job="shop", le="15.0"}': "0+10x60",
            'headrace_timer_fire_delay_seconds_bucket{job="shop", le="+Inf"}': "0+10x60",
        },
        "30m",
        {"job": "shop"},
    ),
    Case(
        "HeadraceDeadLettersOpen",
        gauge("dead_letters_open", "0x5 2x1500", topic="orders.dlq"),
        "1450m",
        {"job": "shop", "topic": "orders.dlq"},
    ),
    Case("HeadraceDeadLettersOpen", gauge("dead_letters_open", "2x800 0x1 2x1000", topic="orders.dlq"), "1460m"),
    Case(
        "HeadraceTimerLate",
        {
            'headrace_timer_fire_delay_seconds_bucket{job="shop", le="5.0"}': "0+1000x60",
            'headrace_timer_fire_delay_seconds_bucket{job="shop", le="15.0"}': "0+1001x60",
            'headrace_timer_fire_delay_seconds_bucket{job="shop", le="+Inf"}': "0+1001x60",
        },
        "30m",
    ),
    Case(
        "HeadraceLoopBlocked",
        gauge("event_loop_blocked_total", "0+1x30", handler="pay"),
        "20m",
        {"job": "shop", "instance": "a", "handler": "pay"},
    ),
    Case("HeadraceLoopBlocked", gauge("event_loop_blocked_total", "0x10 1x30", handler="pay"), "20m"),
    Case(
        "HeadraceBreakerOpen",
        gauge("circuit_breaker_state", "0x5 1x7 0 1x20", breaker="inventory", state="open"),
        "20m",
        {"job": "shop", "breaker": "inventory"},
    ),
    Case(
        "HeadraceBreakerOpen",
        gauge("circuit_breaker_state", "0x5 1x3 0x30", breaker="inventory", state="open")
        | gauge("circuit_breaker_state", "1x5 0x3 1x30", breaker="inventory", state="closed"),
        "15m",
    ),
    Case(
        "HeadracePartitionStopped",
        gauge("partitions_stopped", "0x5 2x9", topic="shop.runs", reason="unknown_record"),
        "10m",
        {"job": "shop", "topic": "shop.runs", "reason": "unknown_record"},
    ),
    Case("HeadracePartitionStopped", gauge("partitions_stopped", "1x9", topic="orders", reason="topic_remade"), "9m"),
    Case(
        "HeadraceSourceStopped",
        gauge("partitions_stopped", "1x9", topic="orders", reason="topic_remade"),
        "9m",
        {**TOPIC, "reason": "topic_remade"},
    ),
    Case("HeadraceSourceStopped", gauge("partitions_stopped", "2x9", topic="shop.runs", reason="bug"), "9m"),
    Case("HeadraceRunsParked", gauge("runs_active", "0x5 1x9", workflow="fulfil", state="parked"), "10m", WORKFLOW),
    Case("HeadraceRunsParked", gauge("runs_active", "1x9", workflow="fulfil", state="running"), "9m"),
    Case("HeadraceOutputRefused", gauge("outputs_refused_total", "0x5 2x40", topic="orders"), "20m", TOPIC),
    Case("HeadraceOutputRefused", gauge("outputs_refused_total", "2x60", topic="orders"), "50m"),
    Case(
        "HeadraceCheckpointsFailing",
        gauge("checkpoints_failed_total", "0x20 1x40"),
        "30m",
        {"job": "shop", "instance": "a"},
    ),
    Case("HeadraceCheckpointsFailing", gauge("checkpoints_failed_total", "3x90"), "80m"),
    Case(
        "HeadraceApprovalsWaiting",
        gauge("approvals_pending", "2x120", workflow="fulfil")
        | gauge("approval_wait_seconds_count", "0+1x120", workflow="fulfil", decision="expired"),
        "9h",
        WORKFLOW,
        interval="5m",
    ),
    Case(
        "HeadraceApprovalsWaiting",
        gauge("approvals_pending", "2x120", workflow="fulfil")
        | gauge("approval_wait_seconds_count", "0x40 1x40 2x40", workflow="fulfil", decision="approved"),
        "9h",
        interval="5m",
    ),
    Case(
        "HeadraceApprovalsWaiting",
        gauge("approvals_pending", "2x20 0x5 2x60", workflow="fulfil"),
        "6h",
        interval="5m",
    ),
    Case(  # the first decision of a process: a count that begins at 1 has never risen
        "HeadraceApprovalsWaiting",
        gauge("approvals_pending", "2x120", workflow="fulfil")
        | gauge("approval_wait_seconds_count", "_x40 1x80", workflow="fulfil", decision="approved"),
        "7h",
        interval="5m",
    ),
    Case("HeadraceScheduleMissed", gauge("schedule_misfires_total", "0x20 3x40", workflow="fulfil"), "30m", WORKFLOW),
    Case("HeadraceScheduleMissed", gauge("schedule_misfires_total", "3x60", workflow="fulfil"), "50m"),
    Case("HeadraceHistoryStale", gauge("history_lag_seconds", "0+60x40"), "30m", {"job": "shop"}),
    Case(
        "HeadraceHistoryStale",
        gauge("history_lag_seconds", "0x5 400x5 1x30") | gauge("history_lag_seconds", "2x40", instance="b"),
        "30m",
    ),
    Case(
        "HeadraceApiErrors",
        gauge("http_requests_total", "0+9x60", method="GET", route="/api/v1/runs", code="200")
        | gauge("http_requests_total", "0+1x60", method="GET", route="/api/v1/runs", code="503"),
        "40m",
        {"job": "shop"},
    ),
    Case(
        "HeadraceApiErrors",
        gauge("http_requests_total", "0+99x60", method="GET", route="/api/v1/runs", code="200")
        | gauge("http_requests_total", "0+1x60", method="GET", route="/api/v1/runs", code="500")
        | gauge("http_requests_total", "0+50x60", method="GET", route="/api/v1/runs", code="404"),
        "40m",
    ),
    Case("HeadraceMetricsAbsent", {'up{job="other"}': "1x20"}, "10m", {}),
    Case("HeadraceMetricsAbsent", gauge("build_info", "1x20", version="1"), "10m"),
    Case(
        "HeadraceWorkerDown",
        {'up{job="shop", instance="a"}': "1x5 0x30"} | gauge("build_info", "1x5", version="1"),
        "20m",
        {"job": "shop", "instance": "a"},
    ),
    Case(
        "HeadraceWorkerDown",
        {'up{job="other", instance="a"}': "0x30", 'up{job="shop", instance="a"}': "1x30"}
        | gauge("build_info", "1x30", version="1"),
        "20m",
    ),
)
ALWAYS: Final = {"HeadraceMetricsAbsent"}
"""It fires without labels of its own."""
