"""Workflow: one workflow, or a few: its tasks, its outcomes, where its time goes."""

from typing import Final

from deploy.monitoring.dashboard import Dashboard, Row
from deploy.monitoring.metric import INTERVAL, per_second, quantile, select, total
from deploy.monitoring.panel import RUNS_OF_SERIES, Lines, Number, Query, Table, Unit

_TASKS = per_second("task_attempts_total", by="workflow, task")
_BAD = "~failed|timed_out"

WORKFLOW: Final = Dashboard(
    uid="headrace-workflow",
    title="Headrace / Workflow",
    description="Tasks, outcomes and delays of the workflows that are chosen above.",
    rows=(
        Row(
            "Now",
            (
                Number(
                    title="Started",
                    description="Runs started, per second.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("runs_started_total")),),
                ),
                Number(
                    title="Running",
                    description="Open runs that have work, undoing included.",
                    unit=Unit.COUNT,
                    queries=(Query(f"{total('runs_active', state='~running|compensating')} or vector(0)"),),
                ),
                Number(
                    title="Waiting",
                    description="Open runs that sleep or wait, and those queued behind another run of their key.",
                    unit=Unit.COUNT,
                    queries=(Query(f"{total('runs_active', state='~waiting|queued|paused')} or vector(0)"),),
                ),
                Number(
                    title="Held or not admitted",
                    description="Open runs that wait for a breaker, a pool, a rate limit, a version of their code, or room.",
                    unit=Unit.COUNT,
                    queries=(Query(f"{total('runs_active', state='~held|unadmitted')} or vector(0)"),),
                ),
                Number(
                    title="Attempts in progress",
                    description="Handlers that run now.",
                    unit=Unit.COUNT,
                    queries=(Query(total("tasks_in_progress")),),
                ),
                Number(
                    title="Oldest open run",
                    description="How long ago the oldest open run started.",
                    unit=Unit.SECONDS,
                    queries=(
                        Query(f"time() - min({select('oldest_active_run_start_timestamp_seconds')}) or vector(0)"),
                    ),
                ),
            ),
        ),
        Row(
            "Tasks",
            (
                Table(
                    title="Tasks",
                    description="Attempts of each task. Start delay is that of all tasks of the workflow: ready to started, "
                    "waits for policies included.",
                    unit=Unit.PER_SECOND,
                    pages={"workflow": "runs?workflow=${__data.fields.workflow}"},
                    units={
                        "failing": Unit.SHARE,
                        "p95": Unit.SECONDS,
                        "start delay p95": Unit.SECONDS,
                    },
                    queries=(
                        Query(_TASKS, "attempts"),
                        Query(
                            f"{per_second('task_attempts_total', result=_BAD, by='workflow, task')} / {_TASKS}",
                            "failing",
                        ),
                        Query(quantile(0.95, "task_duration_seconds", by="workflow, task"), "p95"),
                        Query(per_second("task_retries_total", by="workflow, task"), "retries"),
                        Query(
                            f"sum by (workflow, task) ({_TASKS} * 0) + on (workflow) group_left () "
                            f"{quantile(0.95, 'task_start_delay_seconds', by='workflow')}",
                            "start delay p95",
                        ),
                    ),
                ),
                Lines(
                    title="Task duration, p95",
                    description="Handler time of one attempt. A point is an attempt of a sampled run: click it for its trace.",
                    unit=Unit.SECONDS,
                    width=12,
                    queries=(Query(quantile(0.95, "task_duration_seconds", by="task"), "{{task}}", exemplars=True),),
                ),
                Lines(
                    title="Attempts, by result",
                    description="Rejected: a policy did not let it begin.",
                    unit=Unit.PER_SECOND,
                    width=12,
                    stacked=True,
                    queries=(Query(per_second("task_attempts_total", by="result"), "{{result}}"),),
                ),
                Lines(
                    title="Retries, by error",
                    description="Failed attempts that are followed by another, by task and exception.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("task_retries_total", by="task, error"), "{{task}} {{error}}"),),
                ),
                Lines(
                    title="Tasks without an attempt",
                    description="What they wait for: their retry, a breaker, a pool, a rate limit.",
                    unit=Unit.COUNT,
                    stacked=True,
                    queries=(Query(total("tasks_queued", by="state"), "{{state}}"),),
                ),
                Lines(
                    title="Task start delay",
                    description="Ready to started, waits for policies included.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "task_start_delay_seconds"), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)
                    ),
                ),
            ),
        ),
        Row(
            "Runs",
            (
                Lines(
                    title="Outcomes",
                    description="Runs finished, by status.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("runs_finished_total", by="status"), "{{status}}"),),
                ),
                Lines(
                    title="Run duration",
                    description="Start command to terminal record. A point is a sampled run.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "run_duration_seconds"), f"p{q * 100:.0f}", exemplars=True)
                        for q in (0.5, 0.95, 0.99)
                    ),
                ),
                Lines(
                    title="Start delay",
                    description="Source record time to the run's admission. A point is a sampled run.",
                    unit=Unit.SECONDS,
                    queries=tuple(
                        Query(quantile(q, "run_start_delay_seconds"), f"p{q * 100:.0f}", exemplars=True)
                        for q in (0.5, 0.95, 0.99)
                    ),
                ),
                Lines(
                    title="Open runs, by state",
                    description="Where they stand.",
                    unit=Unit.COUNT,
                    stacked=True,
                    queries=(Query(total("runs_active", by="state"), "{{state}}"),),
                ),
                Lines(
                    title="Open runs, by workflow",
                    description="All runs that have not ended. A click opens the list of the workflow's runs in the console.",
                    unit=Unit.COUNT,
                    console=RUNS_OF_SERIES,
                    queries=(Query(total("runs_active", by="workflow"), "{{workflow}}"),),
                ),
                Lines(
                    title="Runs started, by trigger",
                    description="Runs whose first instructions were carried out: by an event, a schedule, a parent, HTTP or a person.",
                    unit=Unit.PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("runs_started_total", by="trigger"), "{{trigger}}"),),
                ),
                Lines(
                    title="Slots missed",
                    description="Slots of schedules that are over and start nothing, as the schedule's rule has it.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            f"sum by (workflow) (increase({select('schedule_misfires_total')}[{INTERVAL}]))",
                            "{{workflow}}",
                        ),
                    ),
                ),
                Lines(
                    title="Undos",
                    description="Compensations that are over for good. A failed one leaves an effect that nobody took back.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("compensations_total", by="result"), "{{result}}"),),
                ),
                Lines(
                    title="Handlers abandoned",
                    description="Handlers that still run although nobody waits for them: threads, or cancellations that were swallowed.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            f"sum by (task, reason) (increase({select('handlers_abandoned_total')}[{INTERVAL}])) or vector(0)",
                            "{{task}} {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
