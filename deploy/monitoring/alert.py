"""The alerts. Each says what is wrong for whom; its page in docs/runbooks says what to do.

`page`: somebody should look now, because work is lost, late or stands still. `ticket`: within a working day.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from deploy.monitoring.metric import full_name
from deploy.monitoring.objective import START_OBJECTIVE, START_WITHIN_S, SUCCESS_OBJECTIVE
from deploy.monitoring.recording import FAILURES, LATE_STARTS

RUNBOOKS: Final = "docs/runbooks"
RUNS_MIN: Final = 10
"""Of fewer runs in the long window a ratio says nothing."""


class Severity(StrEnum):
    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """`wait`: how long it must hold. Texts are Prometheus' templates."""

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    wait: str = "0m"

    def rule(self, runbooks: str = RUNBOOKS) -> dict[str, Any]:
        """As a rule file has it. `runbooks`: the address or folder of the pages."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity.value},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbooks}/{self.name}.md",
            },
        }


def _burn(ratio: str, count: str, objective: float, steps: tuple[tuple[str, str, float], ...]) -> str:
    """Both windows above the burn rate: the long one says that it matters, the short one that it goes on."""
    parts: list[str] = []
    for long, short, rate in steps:
        limit = f"{rate * (1 - objective):g}"
        enough = f"sum by (job, workflow) (increase({full_name(count)}[{long}])) >= {RUNS_MIN}"
        parts.append(f"({ratio}{long} > {limit} and {ratio}{short} > {limit} and {enough})")
    return " or ".join(parts)


_FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
_SLOW = (("1d", "2h", 3.0), ("3d", "6h", 1.0))
_FINISHED, _STARTED = "runs_finished_total", "run_start_delay_seconds_count"
_BY_WORKFLOW: Final = "sum by (job, workflow)"
_DECIDED: Final = full_name("approval_wait_seconds_count") + '{decision=~"approved|rejected"}'

ALERTS: Final = (
    Alert(
        name="HeadraceRunFailureBudgetBurnFast",
        expr=_burn(FAILURES, _FINISHED, SUCCESS_OBJECTIVE, _FAST),
        wait="2m",
        severity=Severity.PAGE,
        summary="Runs of {{ $labels.workflow }} fail fast.",
        description="{{ $value | humanizePercentage }} of the runs of {{ $labels.workflow }} fail: the error budget of "
        "30 days would be gone in about two days, or less.",
    ),
    Alert(
        name="HeadraceRunFailureBudgetBurnSlow",
        expr=_burn(FAILURES, _FINISHED, SUCCESS_OBJECTIVE, _SLOW),
        wait="15m",
        severity=Severity.TICKET,
        summary="Runs of {{ $labels.workflow }} fail more often than agreed.",
        description="{{ $value | humanizePercentage }} of the runs of {{ $labels.workflow }} fail: the error budget will "
        "not last for 30 days.",
    ),
    Alert(
        name="HeadraceStartDelayBudgetBurnFast",
        expr=_burn(LATE_STARTS, _STARTED, START_OBJECTIVE, _FAST),
        wait="2m",
        severity=Severity.PAGE,
        summary="Runs of {{ $labels.workflow }} start late.",
        description="{{ $value | humanizePercentage }} of the runs of {{ $labels.workflow }} start more than "
        f"{START_WITHIN_S} s after their event: the budget of 30 days would be gone in about two days, or less.",
    ),
    Alert(
        name="HeadraceStartDelayBudgetBurnSlow",
        expr=_burn(LATE_STARTS, _STARTED, START_OBJECTIVE, _SLOW),
        wait="15m",
        severity=Severity.TICKET,
        summary="Runs of {{ $labels.workflow }} start late more often than agreed.",
        description="{{ $value | humanizePercentage }} of the runs of {{ $labels.workflow }} start more than "
        f"{START_WITHIN_S} s after their event: the budget will not last for 30 days.",
    ),
    Alert(
        name="HeadraceLagGrowing",
        expr=f"max by (job, topic) ({full_name('kafka_consumer_lag_seconds')}) > 60 "
        f"and max by (job, topic) (deriv({full_name('kafka_consumer_lag_seconds')}[10m])) > 0",
        wait="10m",
        severity=Severity.PAGE,
        summary="{{ $labels.topic }} is read {{ $value | humanizeDuration }} late, and later all the time.",
        description="The oldest record of {{ $labels.topic }} that is not done is {{ $value | humanizeDuration }} old. "
        "Events come faster than runs start.",
    ),
    Alert(
        name="HeadraceBacklogWillBreach",
        expr=f"min by (job, workflow) ({full_name('forecast_backlog_breach_seconds')}) < 1800",
        wait="5m",
        severity=Severity.PAGE,
        summary="Starts of {{ $labels.workflow }} will wait too long in {{ $value | humanizeDuration }}.",
        description="At the present rates a new start of {{ $labels.workflow }} waits longer than telemetry.delay_limit in "
        "{{ $value | humanizeDuration }}; 0: it does already.",
    ),
    Alert(
        name="HeadraceNoPartitions",
        expr=f'sum by (job, group) ({full_name("kafka_partitions_assigned")}{{group=~".+[.]owners"}}) == 0',
        wait="5m",
        severity=Severity.PAGE,
        summary="No process of {{ $labels.job }} owns a partition of the run log.",
        description="Processes run, but none has a partition in {{ $labels.group }}: no run goes on.",
    ),
    Alert(
        name="HeadraceRebalanceStorm",
        expr=f'max by (job, group) (increase({full_name("kafka_rebalances_total")}{{event="assigned"}}[15m])) > 10',
        wait="5m",
        severity=Severity.TICKET,
        summary="Partitions of {{ $labels.job }} are placed anew all the time.",
        description="{{ $labels.group }} was placed {{ $value | humanize }} times in 15 minutes. Each time, some partitions "
        "stand still for a moment.",
    ),
    Alert(
        name="HeadraceRunStuck",
        expr=f"{_BY_WORKFLOW} (min_over_time("
        f'{full_name("runs_active")}{{state=~"running|held|unadmitted|compensating"}}[30m])) > 0 '
        f"unless {_BY_WORKFLOW} (increase({full_name('task_attempts_total')}[30m])) > 0",
        wait="5m",
        severity=Severity.TICKET,
        summary="Runs of {{ $labels.workflow }} have work, and none of it ends.",
        description="For half an hour {{ $value | humanize }} runs of {{ $labels.workflow }} were running, held or not "
        "admitted, and no attempt of theirs ended.",
    ),
    Alert(
        name="HeadraceDeadLetters",
        expr=f"sum by (job, topic, reason) (increase({full_name('dead_letters_total')}[30m])) > 0",
        severity=Severity.TICKET,
        summary="Records of {{ $labels.topic }} went to the dead letters.",
        description="{{ $value | humanize }} records within 30 minutes, refused at stage {{ $labels.reason }}.",
    ),
    Alert(
        name="HeadraceDeadLettersOpen",
        expr=f"max by (job, topic) ({full_name('dead_letters_open')}) > 0",
        wait="1d",
        severity=Severity.TICKET,
        summary="{{ $value }} dead letters are open in {{ $labels.topic }}.",
        description="For a day there was always at least one: nobody has dealt with them.",
    ),
    Alert(
        name="HeadraceTimerLate",
        expr=f"histogram_quantile(0.99, sum by (job, le) (rate({full_name('timer_fire_delay_seconds')}_bucket[10m]))) > 5",
        wait="10m",
        severity=Severity.TICKET,
        summary="Sleeps of {{ $labels.job }} end late.",
        description="1 % of the timers fire {{ $value | humanizeDuration }} or more after they were due.",
    ),
    Alert(
        name="HeadraceLoopBlocked",
        expr=f"sum by (job, instance, handler) (increase({full_name('event_loop_blocked_total')}[15m])) > 2",
        severity=Severity.TICKET,
        summary="The event loop of {{ $labels.instance }} is blocked{{ with $labels.handler }} by {{ . }}{{ end }}.",
        description="It stood still {{ $value | humanize }} times in 15 minutes. Every run of the process waits meanwhile; "
        "a long block costs it its partitions.",
    ),
    Alert(
        name="HeadraceBreakerOpen",
        expr=f'max by (job, breaker) (avg_over_time({full_name("circuit_breaker_state")}{{state="open"}}[10m])) > 0.5',
        wait="1m",
        severity=Severity.TICKET,
        summary="Breaker {{ $labels.breaker }} stays open.",
        description="It was open for {{ $value | humanizePercentage }} of the last 10 minutes: what it guards does not "
        "answer, and tasks are held.",
    ),
    Alert(
        name="HeadracePartitionStopped",
        expr=f'sum by (job, topic, reason) ({full_name("partitions_stopped")}{{topic=~".+[.]runs"}}) > 0',
        severity=Severity.PAGE,
        summary="{{ $value }} partitions of {{ $labels.topic }} stand still: {{ $labels.reason }}.",
        description="Their runs do not go on until somebody acts. Other partitions are not touched.",
    ),
    Alert(
        name="HeadraceSourceStopped",
        expr=f'sum by (job, topic, reason) ({full_name("partitions_stopped")}{{topic!~".+[.]runs"}}) > 0',
        severity=Severity.PAGE,
        summary="{{ $value }} partitions of {{ $labels.topic }} are not read: {{ $labels.reason }}.",
        description="No event of theirs starts a run until somebody acts. They wait in Kafka, within its retention.",
    ),
    Alert(
        name="HeadraceRunsParked",
        expr=f'{_BY_WORKFLOW} ({full_name("runs_active")}{{state="parked"}}) > 0',
        severity=Severity.TICKET,
        summary="{{ $value }} runs of {{ $labels.workflow }} are parked.",
        description="Their code and the log disagree, or they ended the process again and again. They wait for a command.",
    ),
    Alert(
        name="HeadraceOutputRefused",
        expr=f"sum by (job, topic) (increase({full_name('outputs_refused_total')}[30m])) > 0",
        severity=Severity.TICKET,
        summary="{{ $labels.topic }} refuses what runs emit.",
        description="{{ $value | humanize }} emitted events within 30 minutes will never be taken by {{ $labels.topic }}.",
    ),
    Alert(
        name="HeadraceCheckpointsFailing",
        expr=f"sum by (job, instance) (increase({full_name('checkpoints_failed_total')}[1h])) > 0",
        severity=Severity.TICKET,
        summary="{{ $labels.instance }} gives checkpoints up.",
        description="{{ $value | humanize }} within an hour. Runs go on, but the run log grows and a take-over takes longer until one "
        "succeeds.",
    ),
    Alert(
        name="HeadraceApprovalsWaiting",
        expr=f"{_BY_WORKFLOW} ({full_name('approvals_pending')}) > 0 unless "
        f"({_BY_WORKFLOW} (increase({_DECIDED}[4h])) > 0 or {_BY_WORKFLOW} ({_DECIDED} unless {_DECIDED} offset 4h))",
        wait="4h",
        severity=Severity.TICKET,
        summary="{{ $value }} approvals of {{ $labels.workflow }} wait, and nobody decides.",
        description="For eight hours there was always at least one, and no decision about any of them.",
    ),
    Alert(
        name="HeadraceScheduleMissed",
        expr=f"{_BY_WORKFLOW} (increase({full_name('schedule_misfires_total')}[30m])) > 0",
        severity=Severity.TICKET,
        summary="Scheduled runs of {{ $labels.workflow }} were missed.",
        description="{{ $value | humanize }} slots within 30 minutes are over and start nothing.",
    ),
    Alert(
        name="HeadraceHistoryStale",
        expr=f"max by (job) ({full_name('history_lag_seconds')}) > 300",
        wait="10m",
        severity=Severity.TICKET,
        summary="The history of {{ $labels.job }} is {{ $value | humanizeDuration }} behind.",
        description="Lists in API and console show what was {{ $value | humanizeDuration }} ago. Runs go on; the run log is kept longer "
        "for it, up to history.trim_wait_bytes.",
    ),
    Alert(
        name="HeadraceApiErrors",
        expr=f'sum by (job) (rate({full_name("http_requests_total")}{{code=~"5.."}}[10m])) '
        f"/ sum by (job) (rate({full_name('http_requests_total')}[10m])) > 0.05",
        wait="10m",
        severity=Severity.TICKET,
        summary="The API of {{ $labels.job }} fails.",
        description="{{ $value | humanizePercentage }} of the requests of ten minutes were answered with a status from 500 on.",
    ),
    Alert(
        name="HeadraceMetricsAbsent",
        expr=f"absent({full_name('build_info')})",
        wait="5m",
        severity=Severity.PAGE,
        summary="No process of Headrace shows metrics.",
        description="None runs, or Prometheus does not find them. Without metrics no other alert can fire.",
    ),
    Alert(
        name="HeadraceWorkerDown",
        expr=f"up == 0 and on (job, instance) last_over_time({full_name('build_info')}[1h])",
        wait="5m",
        severity=Severity.TICKET,
        summary="{{ $labels.instance }} does not answer.",
        description="It showed metrics within the last hour and does not any more; the others have its partitions.",
    ),
)
