"""`headrace approval list|get|approve|reject`: what runs ask people, and what these say. Needs no user code, and no service that runs."""

import getpass
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from headrace.service import approval_command
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode, Usage
from headrace.service.cli.option import Common, Timeout, checked_limit, incomplete, options, seconds, warn
from headrace.service.cli.output import Format, show, show_one
from headrace.service.cli.terminal_table import Column
from headrace.service.run_view.approvals import APPROVAL_STATUSES, PENDING, ApprovalFilter, ApprovalView
from headrace.service.run_view.missing import trimmed
from headrace.topics.approval import Verdict

_LIST = (
    Column("APPROVAL", "id"),
    Column("WORKFLOW", "workflow"),
    Column("KEY", "key", spare=1),
    Column("TITLE", "title"),
    Column("ROLES", "roles", spare=2),
    Column("STATUS", "status"),
    Column("REQUESTED", "requested_at", spare=4),
    Column("DUE", "due_at", spare=3),
    Column("BY", "by", spare=5),
)

_Approval = Annotated[str, Parameter(help="The approval's id, as `approval list` shows it.")]
_By = Annotated[str | None, Parameter(help="Who decides; else the name of the system's user.")]
_Note = Annotated[str, Parameter(help="For the workflow and for people; kept in the run log.")]
_Has = Annotated[
    tuple[str, ...],
    Parameter(name="--role", help="A role that who decides has; repeatable.", negative="", show_default=False),
]


async def list_(
    *,
    status: Annotated[
        tuple[str, ...],
        Parameter(help=f"One of {', '.join(APPROVAL_STATUSES)}, or all; repeatable.", negative="", show_default=False),
    ] = (PENDING,),
    workflow: Annotated[str | None, Parameter(help="Only of this workflow, as name or namespace/name.")] = None,
    role: Annotated[
        tuple[str, ...],
        Parameter(help="Only what somebody with this role may decide; repeatable.", negative="", show_default=False),
    ] = (),
    limit: Annotated[int, Parameter(help="At most this many; 0 means all.")] = 50,
    common: Common | None = None,
) -> ExitCode:
    """List approvals that wait for a decision, the newest first; with --status others."""
    common = options(common)
    limit = checked_limit(limit)
    wanted = ApprovalFilter(statuses=_statuses(status), workflow=workflow, roles=frozenset(role), limit=limit)
    settings = common.load().settings
    async with opened(settings) as log:
        found, problems = await approval_command.listed(log, settings, wanted)
    exit_code = incomplete(problems)
    if found.trimmed_at_ms is not None and wanted.statuses != frozenset({PENDING}):
        warn(trimmed("What was over", found.trimmed_at_ms))
    show([_row(view, common.output) for view in found.newest_first()], _LIST, common.output, name="id")
    return exit_code


def _statuses(given: tuple[str, ...]) -> frozenset[str]:
    words = frozenset(word for text in given for word in text.split(","))
    if unknown := words - {*APPROVAL_STATUSES, "all"}:
        do = f"Use {', '.join(APPROVAL_STATUSES)} or all."
        raise Usage(f"--status {', '.join(sorted(unknown))} is unknown.", do=do)
    return frozenset() if "all" in words else words


async def get(approval: _Approval, /, *, common: Common | None = None) -> None:
    """Show one approval, decided or not."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        view = await approval_command.shown(log, settings, approval)
    show_one(_row(view, common.output), common.output, name="id")


async def approve(
    approval: _Approval,
    /,
    *,
    note: _Note = "",
    by: _By = None,
    role: _Has = (),
    patience: Timeout = "30s",
    common: Common | None = None,
) -> None:
    """Say yes. Exit code 4 if somebody was faster or it is too late, 5 if the role is missing."""
    await _decide(approval, Verdict.APPROVED, note, by, role, patience, common)


async def reject(
    approval: _Approval,
    /,
    *,
    note: _Note = "",
    by: _By = None,
    role: _Has = (),
    patience: Timeout = "30s",
    common: Common | None = None,
) -> None:
    """Say no. Exit codes as for `approve`."""
    await _decide(approval, Verdict.REJECTED, note, by, role, patience, common)


async def _decide(
    approval: str,
    verdict: Verdict,
    note: str,
    by: str | None,
    roles: tuple[str, ...],
    patience: str | None,
    common: Common | None,
) -> None:
    common = options(common)
    settings = common.load().settings
    who = _user() if by is None else by
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        view = await approval_command.decide(
            log, settings, approval, verdict, by=who, note=note, roles=roles, patience_s=patience_s
        )
    show_one(_row(view, common.output), common.output, name="id")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Usage("Nobody is named who decides.", why="This user has no name here.", do="Give --by NAME.") from None


def _row(view: ApprovalView, format_: Format) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(view)
    if format_ is Format.TABLE:
        row["roles"] = ", ".join(view.roles)
    return row
