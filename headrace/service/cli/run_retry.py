"""`headrace run retry|dismiss`: begin a new run in place of one that failed, or say that nobody will.

Like all commands to the run log, they are read back: the answer is what every owner will see. A retry is begun by the owner of the partition, now or
when there is one.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, TypeVar

import uuid_utils
from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import Conflict, ExitCode, NotFound, TimedOut
from headrace.service.cli.option import Common, options, seconds
from headrace.service.cli.output import show_one
from headrace.service.cli.run import RunArgument
from headrace.service.cli.run_command import NOT_IN_TIME, WRONG_STATE, Follower, append
from headrace.service.engine.retry import kept_of
from headrace.service.run_view.scan import Seen
from headrace.topics.command import Dismiss, OnConflict, Retry
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log import Log
from headrace.topics.run_record import CommandRecord

T = TypeVar("T")

_From = Annotated[
    str | None,
    Parameter(name="--from", help="Copy only what had finished before this task had: its reference, or its handler."),
]
_Timeout = Annotated[str | None, Parameter(name="--timeout", help="Give up after this time, such as 30s.")]


async def retry(
    run: RunArgument,
    /,
    *,
    from_task: _From = None,
    patience: _Timeout = "30s",
    common: Common | None = None,
) -> ExitCode:
    """Begin a new run in place of a failed one. What had finished is copied; the rest runs with the same idempotency keys."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        follower = await Follower.of(log, settings, run)

        def allowed() -> Retry:
            step = _may_retry(follower, from_task)
            return Retry(run=run, from_step=step)

        identity, seen = await _sent(log, follower, allowed, patience)
    if seen.folded.without_effect:  # another record came in between
        _may_retry(follower, from_task)
        raise Conflict(f"Run {run} could not be retried.", code=WRONG_STATE, do="See `headrace run get`.")
    new = run_id(follower.reading.at.partition, identity)
    open_run = follower.reading.state.runs.get(new)
    copies = len(open_run.retried.copied) if open_run is not None and open_run.retried is not None else 0
    show_one({"id": new, "command": "retry", "retry_of": run, "copied": copies}, common.output, name="id")
    return ExitCode.OK


async def dismiss(run: RunArgument, /, *, patience: _Timeout = "30s", common: Common | None = None) -> ExitCode:
    """Forget what is kept of a failed run for a retry. The run stays in the history."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        follower = await Follower.of(log, settings, run)

        def allowed() -> Dismiss:
            _must_be_kept(follower)
            return Dismiss(run=run)

        _, seen = await _sent(log, follower, allowed, patience)
    if seen.folded.without_effect:
        _must_be_kept(follower)
    show_one({"id": run, "command": "dismiss"}, common.output, name="id")
    return ExitCode.OK


async def _sent(
    log: Log, follower: Follower, allowed: Callable[[], Retry | Dismiss], patience: str | None
) -> tuple[ClientId, Seen]:
    """Append what is allowed once the run's present state is known, and read it back."""
    identity = ClientId(f"cli-{uuid_utils.uuid7()}")
    try:
        async with asyncio.timeout(seconds(patience, "--timeout")), aclosing(follower.records(log)) as records:
            async for seen in records:
                if seen is None:
                    record = CommandRecord(id=identity, body=allowed())
                    await append(log, follower.reading.at, record)
                    continue
                follower.history.see(seen)
                if isinstance(seen.record, CommandRecord) and seen.record.id == identity:
                    return identity, seen
    except TimeoutError:
        raise TimedOut("The run log was not read in time.", code=NOT_IN_TIME, do="Give a longer --timeout.") from None
    raise AssertionError("a partition has no last record")


def _must_be_kept(follower: Follower) -> None:
    """Conflict, unless the run has failed and is kept."""
    summary = follower.must_exist().summary
    if follower.run in follower.reading.state.failed:
        return
    if summary.ended_at is None:
        do = "`headrace run resume` is for a parked one, `headrace run cancel` ends it."
        raise Conflict(f"Run {summary.id} has not ended: it is {summary.status}.", code=WRONG_STATE, do=do)
    why = "Only runs that failed, timed out or were compensated are kept, until they are dismissed, too old (runs.retry_retention) or retried with success."
    raise Conflict(
        f"Run {summary.id} is {summary.status} and not kept: there is nothing to retry or dismiss.",
        code=WRONG_STATE,
        why=why,
        do="Leave it; if its work is to be done anew, publish its event again.",
    )


def _may_retry(follower: Follower, task: str | None) -> str:
    """The step to go on from, or "". Conflict, NotFound."""
    _must_be_kept(follower)
    state = follower.reading.state
    failed = state.failed[follower.run]
    if failed.retry in state.runs:
        raise Conflict(f"Run {follower.run} is being retried as {failed.retry}.", code=WRONG_STATE, do="Wait for it.")
    kept = kept_of(failed)
    start = kept.start
    slot = state.slots.get((start.namespace, start.workflow, start.key or ""))
    if slot is not None and start.key is not None and start.policy in {OnConflict.REJECT, OnConflict.JOIN}:
        message = f"Key {start.key!r} has an open run of {start.workflow}: {slot.open}."
        raise Conflict(message, code=WRONG_STATE, do="Wait until it has ended.")
    if task is None:
        return ""
    steps = [each.step for each in kept.finished]
    found = next((step for step in steps if task in {step, step.rpartition("/")[2]}), None)
    if found is None:
        raise NotFound(
            f"No task {task} was over when run {follower.run} ended.",
            code="HR4105",
            why=f"These were: {', '.join(steps) or 'none'}.",
            do="Name one of them; without --from everything that has finished is copied.",
        )
    return found
