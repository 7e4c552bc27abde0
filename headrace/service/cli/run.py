"""`headrace run list|count|get|history`: what the run log says. Needs no user code, and no service that runs."""

import time
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode
from headrace.service.cli.option import Common, checked_limit, incomplete, options, seconds, warn
from headrace.service.cli.output import Format, show, show_one
from headrace.service.cli.terminal_table import Column
from headrace.service.names import Names
from headrace.service.run_command import partition_of_run, unknown_run
from headrace.service.run_view.history_entry import HistoryEntry
from headrace.service.run_view.missing import trimmed
from headrace.service.run_view.queries_log import read_run
from headrace.service.run_view.run_history import RunHistory
from headrace.service.run_view.scan import scan
from headrace.service.run_view.summary import STATUSES, RunFilter, Summaries
from headrace.service.settings import Settings
from headrace.topics.log import Log

_LIST = (
    Column("RUN", "id"),
    Column("WORKFLOW", "workflow"),
    Column("STATUS", "status"),
    Column("KEY", "key"),
    Column("STARTED", "started_at", spare=2),
    Column("DURATION MS", "duration_ms", right=True, spare=1),
    Column("ATTEMPTS", "attempts", right=True, spare=5),
    Column("RETRIES", "retries", right=True, spare=3),
    Column("SOURCE", "source", spare=4),
    Column("RETRY OF", "retry_of", spare=6),
    Column("PARENT", "parent", spare=7),
    Column("ERROR", "error"),
)
_COUNT = (
    Column("NAMESPACE", "namespace"),
    Column("WORKFLOW", "workflow"),
    Column("VERSION", "version"),
    Column("STATUS", "status"),
    Column("RUNS", "runs", right=True),
)
HISTORY = (
    Column("OFFSET", "offset", right=True),
    Column("TIME", "time"),
    Column("KIND", "kind"),
    Column("STEP", "step"),
    Column("ATTEMPT", "attempt", right=True, spare=2),
    Column("MS", "duration_ms", right=True, spare=3),
    Column("ERROR", "error"),
    Column("RETRY IN MS", "retry_after_ms", right=True, spare=1),
    Column("EFFECT", "effect"),
    Column("DETAIL", "detail"),
)

_SHOWN_IF_SO = {
    "waits_for",
    "parent",
    "parent_step",
    "children",
    "joined",
    "undone",
    "undo_failed",
    "retriable",
    "retry_of",
    "retry",
    "producer_trace_id",
}

RunArgument = Annotated[str, Parameter(help="The run's id.")]
_Status = Annotated[
    tuple[str, ...], Parameter(help=f"One of {', '.join(STATUSES)}; repeatable.", negative="", show_default=False)
]
_Workflow = Annotated[str | None, Parameter(help="Only this workflow, as name or namespace/name.")]
_Key = Annotated[str | None, Parameter(help="Only runs with this key.")]
_Parent = Annotated[str | None, Parameter(help="Only children of this run.")]
_Since = Annotated[str | None, Parameter(help="Only runs started within this time, such as 1h30m.")]


async def list_(
    *,
    status: _Status = (),
    workflow: _Workflow = None,
    key: _Key = None,
    parent: _Parent = None,
    since: _Since = None,
    limit: Annotated[int, Parameter(help="At most this many; 0 means all.")] = 50,
    common: Common | None = None,
) -> ExitCode:
    """List runs, newest first."""
    common = options(common)
    wanted = _filter(status, workflow, key, since, limit, parent)
    summaries, code = await _summaries(common, wanted)
    rows = [msgspec.to_builtins(summary) for summary in summaries.newest_first()]
    show(rows, _LIST, common.output, name="id")
    return code


async def count(
    *,
    status: _Status = (),
    workflow: _Workflow = None,
    key: _Key = None,
    since: _Since = None,
    common: Common | None = None,
) -> ExitCode:
    """Count runs by workflow and status."""
    common = options(common)
    summaries, code = await _summaries(common, _filter(status, workflow, key, since, 1))
    rows = [
        {"namespace": namespace, "workflow": name, "version": version, "status": status_, "runs": runs}
        for (namespace, name, version, status_), runs in sorted(summaries.counts.items())
    ]
    show(rows, _COUNT, common.output, name="runs")
    return code


async def get(run: RunArgument, /, *, common: Common | None = None) -> None:
    """Show one run: its state, input, result, and what it waits for."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        history = await read_history(log, settings, run, keep_entries=False)
    assert history.detail is not None  # noqa: S101 - read_history raises for unknown runs
    detail = msgspec.json.decode(msgspec.json.encode(history.detail))
    row = {**detail.pop("summary"), **detail}
    if settings.telemetry.parent_from_kafka and row["producer_trace_id"] and not row["parent"]:
        row["trace_id"] = row["producer_trace_id"]
    if common.output is Format.TABLE:
        row = _for_eyes(row)
    show_one(row, common.output, name="id")


def _for_eyes(row: dict[str, Any]) -> dict[str, Any]:
    """Without counts of what did not happen; what the run waits for in words."""
    waits = [_waits(one) for one in row["waiting"]]
    children = [
        f"{one['run']} ({one['workflow']} at {one['step']}{'' if one['awaited'] else ', detached'}"
        f"{', ' if one['status'] else ''}{one['status'] or ''})"
        for one in row["children"]
    ]
    shown = {key: value for key, value in row.items() if value or key not in _SHOWN_IF_SO}
    if children:
        shown["children"] = ", ".join(children)
    return {**shown, "waiting": ", ".join(waits)}


def _waits(one: dict[str, Any]) -> str:
    what = f"{one['step']} for {one['waits_for']}"
    if one["roles"]:
        what += f" by {' or '.join(one['roles'])}"
    return f"{what} until {one['until']}" if one["until"] else what


async def history(run: RunArgument, /, *, common: Common | None = None) -> None:
    """Print every record of a run, also those that were skipped, with the reason."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        found = await read_history(log, settings, run)
    rows = [entry_row(entry, common.output) for entry in found.entries]
    show(rows, HISTORY, common.output, name="offset")


def entry_row(entry: HistoryEntry, format_: Format) -> dict[str, Any]:
    """An entry for printing: tables join what JSON keeps apart."""
    if format_ is not Format.TABLE:
        return msgspec.json.decode(msgspec.json.encode(entry))
    row: dict[str, Any] = msgspec.structs.asdict(entry)
    row["effect"] = _effect(entry)
    row["error"] = ": ".join(part for part in (entry.cause, entry.error) if part)
    row["detail"] = "; ".join(part for part in (entry.detail, entry.message) if part)
    row["step"] = entry.step or ""
    for key in ("attempt", "duration_ms", "retry_after_ms"):
        row[key] = "" if row[key] is None else row[key]
    return row


def _effect(entry: HistoryEntry) -> str:
    """Said only where it is not what one expects."""
    if entry.effect == "accepted":
        return ""
    return entry.effect if entry.reason is None else f"{entry.effect}: {entry.reason}"


async def read_history(log: Log, settings: Settings, run: str, *, keep_entries: bool = True) -> RunHistory:
    """Everything that the log has about a run; `NotFound` if that is nothing. Only the run's own partition is read."""
    topic = Names(settings.app.name).runs
    partition = partition_of_run(run, await log.partitions(topic), topic)
    found, problems = await read_run(log, settings, run, partition, keep_entries=keep_entries)
    for problem in problems:
        warn(problem.report())
    if found.detail is None:
        raise unknown_run(run, topic, trimmed_before=found.trimmed_before)
    return found


async def _summaries(common: Common, wanted: RunFilter) -> tuple[Summaries, ExitCode]:
    settings = common.load().settings
    summaries = Summaries(wanted)
    async with opened(settings) as log:
        problems = await scan(log, settings, summaries)
    exit_code = incomplete(problems)
    if summaries.trimmed_at_ms is not None:
        warn(trimmed("Runs that ended", summaries.trimmed_at_ms))
    return summaries, exit_code


def _filter(
    status: tuple[str, ...],
    workflow: str | None,
    key: str | None,
    since: str | None,
    limit: int,
    parent: str | None = None,
) -> RunFilter:
    from headrace.service.cli.exit_code import Usage

    words = frozenset(word for text in status for word in text.split(","))
    if unknown := words - set(STATUSES):
        raise Usage(f"--status {', '.join(sorted(unknown))} is unknown.", do=f"Use {', '.join(STATUSES)}.")
    limit = checked_limit(limit)
    within_s = seconds(since, "--since")
    since_ms = None if within_s is None else round((time.time() - within_s) * 1000)
    return RunFilter(statuses=words, workflow=workflow, key=key, parent=parent, since_ms=since_ms, limit=limit)
