"""`headrace run watch|cancel|resume`: follow a run; end it, or bring it back, and see that it took effect.

A command is appended with an identity of its own: sent twice, it takes effect once. What it did is read back from
the run log, from this command's own record on, so the answer is what every owner will see.
"""

import asyncio
from contextlib import aclosing
from typing import Annotated, Any

from cyclopts import Parameter

from headrace.service import run_command
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode, TimedOut
from headrace.service.cli.option import Common, Timeout, options, seconds, warn
from headrace.service.cli.output import Format, Stream, show_one
from headrace.service.cli.run import RunArgument, entry_row
from headrace.service.cli.terminal_table import TIME_WIDTH, Column
from headrace.service.run_command import Follower
from headrace.service.run_view.run_detail import RunDetail
from headrace.service.sent_command import NOT_IN_TIME
from headrace.topics.outcome import RunStatus

_WATCH = (
    (Column("TIME", "time"), TIME_WIDTH),
    (Column("KIND", "kind"), 17),
    (Column("STEP", "step"), 24),
    (Column("ATTEMPT", "attempt", spare=2), 7),
    (Column("MS", "duration_ms", spare=1), 8),
    (Column("DETAIL", "detail"), 0),
)

_Wait = Annotated[bool, Parameter(help="See that it took effect; --no-wait only appends the command.")]


async def watch(run: RunArgument, /, *, patience: Timeout = None, common: Common | None = None) -> ExitCode:
    """Follow a run until it ends. Exit code 0 if it succeeded, else 8."""
    common = options(common)
    settings = common.load().settings
    stream = Stream(_WATCH, common.output, name="kind")
    async with opened(settings) as log:
        follower = await Follower.of(log, settings, run)
        try:
            async with asyncio.timeout(seconds(patience, "--timeout")), aclosing(follower.records(log)) as records:
                async for seen in records:
                    if seen is None:
                        follower.must_exist()
                        continue
                    entry = follower.history.see(seen)
                    if entry is not None:
                        stream.row(_followed(entry_row(entry, common.output), common.output))
                    if follower.ended is not None:
                        break
        except TimeoutError:
            raise TimedOut(f"Run {run} has not ended within {patience}.", code=NOT_IN_TIME, do="It goes on.") from None
    detail = follower.ended
    assert detail is not None  # noqa: S101 - the records end only with the run
    if common.output is Format.TABLE:
        warn(f"Run {run} {detail.summary.status} after {detail.summary.duration_ms} ms.")
    return ExitCode.OK if detail.summary.status == RunStatus.SUCCEEDED else ExitCode.NOT_SUCCEEDED


def _followed(row: dict[str, Any], format_: Format) -> dict[str, Any]:
    """A row for the stream: its last column has the error too."""
    if format_ is not Format.TABLE:
        return row
    words = (row["effect"], row["error"], row["detail"])
    return {**row, "detail": "; ".join(word for word in words if word)}


async def cancel(
    run: RunArgument,
    /,
    *,
    reason: Annotated[str, Parameter(help="For people; kept in the run log.")] = "",
    patience: Timeout = "30s",
    wait: _Wait = True,
    common: Common | None = None,
) -> None:
    """End a run: open steps are cancelled, finished tasks undone."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        detail = await run_command.cancel(log, settings, run, reason=reason, patience_s=patience_s, wait=wait)
    report(run, "cancel", detail, common)


async def resume(
    run: RunArgument, /, *, patience: Timeout = "30s", wait: _Wait = True, common: Common | None = None
) -> None:
    """Bring a parked run back, after its code or its cause was mended."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        detail = await run_command.resume(log, settings, run, patience_s=patience_s, wait=wait)
    report(run, "resume", detail, common)


def report(run: str, verb: str, detail: RunDetail, common: Common) -> None:
    """The answer of a command."""
    show_one({"id": run, "command": verb, "status": detail.summary.status}, common.output, name="id")
