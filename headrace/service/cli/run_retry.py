"""`headrace run retry|dismiss`: begin a new run in place of one that failed, or say that nobody will.

Like all commands to the run log, they are read back: the answer is what every owner will see. A retry is begun by the owner of the partition, now or
when there is one.
"""

from typing import Annotated

from cyclopts import Parameter

from headrace.service import run_command
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode
from headrace.service.cli.option import Common, Timeout, options, seconds
from headrace.service.cli.output import show_one
from headrace.service.cli.run import RunArgument

_From = Annotated[
    str | None,
    Parameter(name="--from", help="Copy only what had finished before this task had: its reference, or its handler."),
]


async def retry(
    run: RunArgument,
    /,
    *,
    from_task: _From = None,
    patience: Timeout = "30s",
    common: Common | None = None,
) -> ExitCode:
    """Begin a new run in place of a failed one. What had finished is copied; the rest runs with the same idempotency keys."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        new = await run_command.retry(log, settings, run, from_task=from_task, patience_s=patience_s)
    show_one({"id": new.id, "command": "retry", "retry_of": run, "copied": new.copied}, common.output, name="id")
    return ExitCode.OK


async def dismiss(run: RunArgument, /, *, patience: Timeout = "30s", common: Common | None = None) -> ExitCode:
    """Forget what is kept of a failed run for a retry. The run stays in the history."""
    common = options(common)
    settings = common.load().settings
    patience_s = seconds(patience, "--timeout")
    async with opened(settings) as log:
        await run_command.dismiss(log, settings, run, patience_s=patience_s)
    show_one({"id": run, "command": "dismiss"}, common.output, name="id")
    return ExitCode.OK
