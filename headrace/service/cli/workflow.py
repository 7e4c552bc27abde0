"""`headrace workflow list|get`: of an app, or as the run log knows them."""

from collections import Counter
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from headrace.service.cli.app_option import loaded_app
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode, NotFound
from headrace.service.cli.option import Common, incomplete, options
from headrace.service.cli.output import Format, show, show_one
from headrace.service.cli.terminal_table import Column
from headrace.service.definitions.schedule import shown
from headrace.service.run_view.scan import scan
from headrace.service.run_view.summary import RunFilter, Summaries

AppOption = Annotated[str | None, Parameter(help="The app: a module, a file or a folder; else what the run log has.")]

_NAME = (Column("WORKFLOW", "workflow"), Column("NAMESPACE", "namespace", spare=1), Column("VERSION", "version"))
_DEFINED = (*_NAME, Column("TRIGGERS", "triggers"), Column("KEY CONFLICT", "on_conflict"), Column("EMITS", "emits"))
_SEEN = (*_NAME, Column("OPEN", "open", right=True), Column("ENDED", "ended", right=True))
_OPEN = frozenset({"running", "queued", "parked"})


async def list_(*, app: AppOption = None, common: Common | None = None) -> ExitCode:
    """List the workflows of an app, or those seen in the run log with how many runs they have."""
    common = options(common)
    rows, code = await _rows(app, common)
    show(rows, _SEEN if app is None else _DEFINED, common.output, name="workflow")
    return code


async def get(
    name: Annotated[str, Parameter(help="The workflow, as name or namespace/name.")],
    /,
    *,
    app: AppOption = None,
    common: Common | None = None,
) -> ExitCode:
    """Show one workflow, in all its versions."""
    common = options(common)
    rows, code = await _rows(app, common)
    found = [row for row in rows if name in {row["workflow"], f"{row['namespace']}/{row['workflow']}"}]
    if not found:
        where = "The run log" if app is None else app
        raise NotFound(f"{where} has no workflow {name}.", do="See `headrace workflow list`.")
    for row in found:
        show_one(row, common.output, name="workflow")
    return code


async def _rows(app: str | None, common: Common) -> tuple[list[dict[str, Any]], ExitCode]:
    if app is None:
        return await _seen(common)
    rows = _defined(app)
    return ([_for_eyes(row) for row in rows] if common.output is Format.TABLE else rows), ExitCode.OK


def _for_eyes(row: dict[str, Any]) -> dict[str, Any]:
    """Triggers and topics in words instead of JSON."""
    triggers = "; ".join(
        [*(_trigger_words(one) for one in row["triggers"]), *(one["when"] for one in row["schedules"])]
    )
    return {**row, "triggers": triggers, "schedules": [], "emits": ", ".join(row["emits"])}


def _trigger_words(trigger: dict[str, Any]) -> str:
    attributes = [f"{name}={value}" for name, value in trigger["attributes"].items()]
    words = [trigger["topic"], trigger["type"], *attributes, "filter" if trigger["filter"] else None]
    return " ".join(word for word in words if word)


def _defined(app: str) -> list[dict[str, Any]]:
    return [
        {
            "workflow": workflow.name,
            "namespace": workflow.namespace,
            "version": workflow.version,
            "description": workflow.description,
            "triggers": [
                {
                    "topic": trigger.topic,
                    "type": trigger.type,
                    "attributes": dict(trigger.attributes or {}),
                    "filter": trigger.filter is not None,
                }
                for trigger in workflow.triggers
            ],
            "schedules": [
                {"id": id_, "when": shown(each.spec), **msgspec.to_builtins(each.spec)}
                for id_, each in workflow.scheduled.items()
            ],
            "key": workflow.key is not None,
            "on_conflict": str(workflow.on_conflict),
            "timeout_ms": workflow.timeout_ms,
            "emits": list(workflow.emits),
            "place": str(workflow.place),
            "code_hash": workflow.code_hash,
        }
        for workflow in loaded_app(app).workflows
    ]


async def _seen(common: Common) -> tuple[list[dict[str, Any]], ExitCode]:
    settings = common.load().settings
    summaries = Summaries(RunFilter(limit=1))
    async with opened(settings) as log:
        problems = await scan(log, settings, summaries)
    exit_code = incomplete(problems)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for (namespace, name, version, status), runs in summaries.counts.items():
        counts.setdefault((namespace, name, version), Counter())[status] += runs
    rows = [
        {
            "workflow": name,
            "namespace": namespace,
            "version": version,
            "open": sum(runs for status, runs in by_status.items() if status in _OPEN),
            "ended": sum(runs for status, runs in by_status.items() if status not in _OPEN),
            "runs": dict(by_status),
        }
        for (namespace, name, version), by_status in sorted(counts.items())
    ]
    return msgspec.to_builtins(rows), exit_code
