"""Overview: does it work, and does anything need somebody?"""

from typing import Final

from deploy.monitoring.dashboard import Dashboard, Row
from deploy.monitoring.metric import per_second, quantile, select, total
from deploy.monitoring.objective import (
    BUDGET_WINDOW,
    COUNTED,
    FAILED,
    START_OBJECTIVE,
    START_WITHIN_S,
    SUCCESS_OBJECTIVE,
)
from deploy.monitoring.panel import RUNS_OF_SERIES, Lines, Number, Query, Unit


def _month(name: str, **where: str) -> str:
    return f"sum(increase({select(name, **where)}[{BUDGET_WINDOW}]))"


_FAILURE_BUDGET = f"1 - ({_month('runs_finished_total', status=FAILED)} / {_month('runs_finished_total', status=COUNTED)}) / {1 - SUCCESS_OBJECTIVE:g}"
_IN_TIME = _month("run_start_delay_seconds_bucket", le=START_WITHIN_S)
_START_BUDGET = f"1 - (1 - {_IN_TIME} / {_month('run_start_delay_seconds_count')}) / {1 - START_OBJECTIVE:g}"

OVERVIEW: Final = Dashboard(
    uid="headrace-overview",
    title="Headrace / Overview",
    description="Rate, failures, durations and what needs somebody, over all workflows.",
    rows=(
        Row(
            "Now",
            (
                Number(
                    title="Runs finished",
                    description="Runs whose terminal record was read back, per second.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("runs_finished_total")),),
                ),
                Number(
                    title="Failed runs",
                    description="Share of the runs that ended failed, timed out or compensated. Cancelled runs do not count.",
                    unit=Unit.SHARE,
                    bad_from=1 - SUCCESS_OBJECTIVE,
                    queries=(
                        Query(
                            f"{per_second('runs_finished_total', status=FAILED)} / {per_second('runs_finished_total', status=COUNTED)}"
                        ),
                    ),
                ),
                Number(
                    title="Run duration, p95",
                    description="Start command to terminal record.",
                    unit=Unit.SECONDS,
                    queries=(Query(quantile(0.95, "run_duration_seconds")),),
                ),
                Number(
                    title="Open runs",
                    description="All runs that have not ended, wherever they stand.",
                    unit=Unit.COUNT,
                    queries=(Query(total("runs_active")),),
                ),
                Number(
                    title="Lag",
                    description="Age of the oldest source record that is not done, over all partitions.",
                    unit=Unit.SECONDS,
                    bad_from=60,
                    queries=(Query(f"max({select('kafka_consumer_lag_seconds')})"),),
                ),
                Number(
                    title="Workers",
                    description="Processes that Prometheus reaches.",
                    unit=Unit.COUNT,
                    good_from=1,
                    queries=(Query(f"count({select('build_info')})"),),
                ),
                Number(
                    title="Failure budget left",
                    description=f"Of {1 - SUCCESS_OBJECTIVE:.0%} of the runs that may fail within {BUDGET_WINDOW}. Below 0: overspent.",
                    unit=Unit.SHARE,
                    good_from=0,
                    queries=(Query(_FAILURE_BUDGET),),
                ),
                Number(
                    title="Start budget left",
                    description=f"Of {1 - START_OBJECTIVE:.0%} of the runs that may start later than {START_WITHIN_S} s "
                    f"after their event within {BUDGET_WINDOW}. Below 0: overspent.",
                    unit=Unit.SHARE,
                    good_from=0,
                    queries=(Query(_START_BUDGET),),
                ),
                Number(
                    title="Dead letters, 24 h",
                    description="Records that a dead-letter topic took within a day.",
                    unit=Unit.COUNT,
                    console="dead-letters",
                    bad_from=1,
                    queries=(Query(f"sum(increase({select('dead_letters_total')}[1d]))"),),
                ),
                Number(
                    title="Parked runs",
                    description="Runs that were taken out of progress and wait for `headrace run resume`, `retry` or `cancel`.",
                    unit=Unit.COUNT,
                    console="runs?status=parked",
                    bad_from=1,
                    queries=(Query(f"{total('runs_active', state='parked')} or vector(0)"),),
                ),
                Number(
                    title="Stopped partitions",
                    description="Partitions of the run log or of a source that stand still until somebody acts.",
                    unit=Unit.COUNT,
                    bad_from=1,
                    queries=(Query(f"{total('partitions_stopped')} or vector(0)"),),
                ),
                Number(
                    title="Open breakers",
                    description="Circuit breakers that hold or reject calls now, counted for each process.",
                    unit=Unit.COUNT,
                    bad_from=1,
                    queries=(Query(f"{total('circuit_breaker_state', state='open')} or vector(0)"),),
                ),
            ),
        ),
        Row(
            "Runs",
            (
                Lines(
                    title="Runs started, by trigger",
                    description="Runs whose first instructions were carried out, per second.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("runs_started_total", by="trigger"), "{{trigger}}"),),
                ),
                Lines(
                    title="Runs finished, by status",
                    description="Outcomes, per second.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("runs_finished_total", by="status"), "{{status}}"),),
                ),
                Lines(
                    title="Failed runs, by workflow",
                    description="Runs that ended failed, timed out or compensated, per second. A click opens their list in the console.",
                    unit=Unit.PER_SECOND,
                    console=RUNS_OF_SERIES,
                    queries=(Query(per_second("runs_finished_total", status=FAILED, by="workflow"), "{{workflow}}"),),
                ),
                Lines(
                    title="Run duration",
                    description="Start command to terminal record. A point is a sampled run: click it for its trace.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "run_duration_seconds"), f"p{q * 100:.0f}", exemplars=True)
                        for q in (0.5, 0.95, 0.99)
                    ),
                ),
                Lines(
                    title="Event to result",
                    description="Source record time to the acknowledged result record. A point is a sampled run.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "run_result_delay_seconds"), f"p{q * 100:.0f}", exemplars=True)
                        for q in (0.5, 0.95, 0.99)
                    ),
                ),
                Lines(
                    title="Open runs, by state",
                    description="Where they stand. Only running and compensating runs use a slot; unadmitted ones wait for room.",
                    unit=Unit.COUNT,
                    stacked=True,
                    queries=(Query(total("runs_active", by="state"), "{{state}}"),),
                ),
            ),
        ),
        Row(
            "What waits for people",
            (
                Number(
                    title="Approvals pending",
                    description="Runs wait for somebody to decide. A click opens the list in the console.",
                    unit=Unit.COUNT,
                    height=8,
                    console="approvals",
                    queries=(Query(f"{total('approvals_pending')} or vector(0)"),),
                ),
                Lines(
                    title="Approvals pending, by workflow",
                    description="Requests that nobody has decided.",
                    unit=Unit.COUNT,
                    width=10,
                    queries=(Query(total("approvals_pending", by="workflow"), "{{workflow}}"),),
                ),
                Lines(
                    title="Wait for a decision",
                    description="Request to decision, of those that were decided.",
                    unit=Unit.SECONDS,
                    width=10,
                    queries=tuple(
                        Query(quantile(q, "approval_wait_seconds", by="decision"), f"p{q * 100:.0f} {{{{decision}}}}")
                        for q in (0.5, 0.95)
                    ),
                ),
            ),
        ),
        Row(
            "What will happen next",
            (
                Lines(
                    title="Time until starts wait too long",
                    description="At the present rates and trends, until a start waits longer than telemetry.delay_limit. "
                    "Nothing is drawn where that will not happen.",
                    unit=Unit.SECONDS,
                    queries=(
                        Query(f"min by (workflow) ({select('forecast_backlog_breach_seconds')})", "{{workflow}}"),
                    ),
                ),
                Lines(
                    title="Time until the backlog is gone",
                    description="Until no start waits, at the present rates. Nothing is drawn where it grows.",
                    unit=Unit.SECONDS,
                    queries=(Query(f"max by (workflow) ({select('forecast_backlog_drain_seconds')})", "{{workflow}}"),),
                ),
                Lines(
                    title="Arrivals and capacity",
                    description="Runs that come, with their trend, and runs that these processes could serve with what limits them.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(total("forecast_arrivals_per_second", by="workflow"), "arrivals {{workflow}}"),
                        Query(total("forecast_capacity_per_second", by="workflow"), "capacity {{workflow}}"),
                    ),
                ),
                Lines(
                    title="Workers needed",
                    description="Workers like these that the present load needs, and those that there are.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(f"ceil({total('forecast_workers_needed')})", "needed"),
                        Query(f"count({select('build_info')})", "there"),
                    ),
                ),
                Lines(
                    title="Bottleneck",
                    description="Processes that each resource limits now: CPU, the broker, slots, threads, one pool, rate limit, breaker, task or partition.",
                    unit=Unit.COUNT,
                    queries=(Query(total("forecast_bottleneck", by="resource"), "{{resource}}"),),
                ),
                Lines(
                    title="Use of resources",
                    description="Share of each resource that is used, the fullest process; and how many times as much would "
                    "pass without what limits.",
                    unit=Unit.SHARE,
                    queries=(
                        Query(f"max by (resource) ({select('forecast_utilization_ratio')})", "{{resource}}"),
                        Query(
                            f"max by (resource) ({select('forecast_bottleneck_relief_ratio')})",
                            "relief of {{resource}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "What comes in, and what could not be used",
            (
                Lines(
                    title="Lag, by topic",
                    description="Age of the oldest source record that is not done. Growing: events come faster than runs start.",
                    unit=Unit.SECONDS,
                    queries=(Query(f"max by (topic) ({select('kafka_consumer_lag_seconds')})", "{{topic}}"),),
                ),
                Lines(
                    title="Events read",
                    description="Source records read by the routers, per second.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("events_consumed_total", by="topic"), "{{topic}}"),),
                ),
                Lines(
                    title="Events without a run",
                    description="Source records that made no command: no trigger wanted them, they came before, or too late.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("events_discarded_total", by="topic, reason"), "{{topic}} {{reason}}"),),
                ),
                Lines(
                    title="Dead letters",
                    description="Records that a dead-letter topic took, by source and by the stage that refused them.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("dead_letters_total", by="topic, reason"), "{{topic}} {{reason}}"),),
                ),
                Lines(
                    title="Dead letters open",
                    description="Dead letters that nobody has redriven or resolved. A click opens them in the console.",
                    unit=Unit.COUNT,
                    console="dead-letters?topic=${__field.labels.topic}",
                    queries=(Query(f"max by (topic) ({select('dead_letters_open')})", "{{topic}}"),),
                ),
                Lines(
                    title="Dead letters redriven",
                    description="Dead letters that were sent to their source again, by what became of it.",
                    unit=Unit.PER_SECOND,
                    console="dead-letters?state=redriven",
                    queries=(Query(per_second("dead_letter_redrives_total", by="result"), "{{result}}"),),
                ),
                Lines(
                    title="Runs parked",
                    description="Runs taken out of progress: their code and the log disagree, or they ended the process again and again.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("runs_parked_total", by="workflow, reason"), "{{workflow}} {{reason}}"),),
                ),
                Lines(
                    title="Outputs refused or repeated",
                    description="Emitted events that their topic will never take; and those sent again, which readers drop by id.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(per_second("outputs_refused_total", by="topic"), "refused {{topic}}"),
                        Query(per_second("outputs_resent_total", by="topic"), "repeated {{topic}}"),
                    ),
                ),
            ),
        ),
    ),
)
