"""`headrace run watch|cancel|resume`: follow a run; end it, or bring it back, and see that it took effect.

A command is appended with an identity of its own: sent twice, it takes effect once. What it did is read back from
the run log, from this command's own record on, so the answer is what every owner will see.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import uuid_utils
from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import Conflict, ExitCode, TimedOut
from headrace.service.cli.option import Common, options, seconds, warn
from headrace.service.cli.output import Format, Stream, show_one
from headrace.service.cli.run import RunArgument, entry_row, partition_of_run, unknown_run
from headrace.service.cli.terminal_table import TIME_WIDTH, Column
from headrace.service.engine.retry import RETRIABLE
from headrace.service.names import Names
from headrace.service.run_view.history import RunDetail, RunHistory
from headrace.service.run_view.scan import Reading, Seen
from headrace.service.settings import Settings
from headrace.topics.command import Cancel, Command, Resume
from headrace.topics.identity import ClientId
from headrace.topics.log import AppendFailed, Log, LogUnavailable, NewRecord, TopicPartition
from headrace.topics.outcome import RunStatus
from headrace.topics.run_record import CommandRecord, encode

WRONG_STATE = "HR4102"
NOT_IN_TIME = "HR4103"
APPEND_TRIES = 5  # an append that may or may not have happened is repeated: its identity makes that harmless
_APPEND_WAIT_S = 0.5
LOOK_ON_S = 1.0  # after a resume: code that still does not fit the log parks the run again within milliseconds

_WATCH = (
    (Column("TIME", "time"), TIME_WIDTH),
    (Column("KIND", "kind"), 17),
    (Column("STEP", "step"), 24),
    (Column("ATTEMPT", "attempt", spare=2), 7),
    (Column("MS", "duration_ms", spare=1), 8),
    (Column("DETAIL", "detail"), 0),
)

_Timeout = Annotated[
    str | None, Parameter(name="--timeout", help="Give up after this time, such as 30s: exit code 124.")
]
_Wait = Annotated[bool, Parameter(help="See that it took effect; --no-wait only appends the command.")]


async def watch(run: RunArgument, /, *, patience: _Timeout = None, common: Common | None = None) -> ExitCode:
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
    patience: _Timeout = "30s",
    wait: _Wait = True,
    common: Common | None = None,
) -> None:
    """End a run: open steps are cancelled, finished tasks undone."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        follower = await Follower.of(log, settings, run)
        detail = await _carried_out(log, follower, Cancel(run=run, reason=reason), patience=patience, wait=wait)
    report(run, "cancel", detail, common)


async def resume(
    run: RunArgument, /, *, patience: _Timeout = "30s", wait: _Wait = True, common: Common | None = None
) -> None:
    """Bring a parked run back, after its code or its cause was mended."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        follower = await Follower.of(log, settings, run)
        detail = await _carried_out(log, follower, Resume(run=run), patience=patience, wait=wait)
    if wait and detail.summary.status == "parked":
        raise Conflict(
            f"Run {run} was resumed, and parked again: {detail.summary.parked}.",
            code="HR4104",
            why=f"At {detail.parked_step} the log has: {detail.expected}. The code did: {detail.found}."
            if detail.parked_step
            else f"Expected {detail.expected}; {detail.found}.",
            do="Mend the code, start the service with it, and resume once more.",
        )
    report(run, "resume", detail, common)


class Follower:
    """One run's partition, read from its start on."""

    def __init__(self, history: RunHistory, reading: Reading) -> None:
        self.run = history.run
        self.reading = reading
        self.history = history

    @classmethod
    async def of(cls, log: Log, settings: Settings, run: str) -> "Follower":
        """Find the partition; `NotFound` if that is no run id."""
        topic = Names(settings.app.name).runs
        count = await log.partitions(topic)
        at = TopicPartition(topic, partition_of_run(run, count, topic))
        history = RunHistory(run, keep_entries=False)
        return cls(history, Reading(at, settings, partitions=count, begin=history.begin))

    @property
    def ended(self) -> RunDetail | None:
        """The run, once it has ended."""
        return self.history.detail

    def records(self, log: Log) -> AsyncGenerator[Seen | None]:
        """All records of the partition; None when those that were there have been seen."""
        return self.reading.following(log)

    def must_exist(self) -> RunDetail:
        """The run as it is now; `NotFound` if there is none."""
        detail = self.history.current(self.reading.state)
        if detail is None:
            raise unknown_run(self.run, self.reading.at.topic, trimmed_before=self.history.trimmed_before)
        return detail


async def _carried_out(
    log: Log, follower: Follower, command: Cancel | Resume, *, patience: str | None, wait: bool
) -> RunDetail:
    """Append the command once the run's present state allows it, and follow until it took effect."""
    identity = ClientId(f"cli-{uuid_utils.uuid7()}")
    appended = resumed = False
    limit = asyncio.timeout(seconds(patience, "--timeout"))
    try:
        async with limit, aclosing(follower.records(log)) as records:
            async for seen in records:
                if seen is not None:
                    entry = follower.history.see(seen)
                    if resumed and entry is not None:
                        return follower.must_exist()
                    if appended and _is_done(seen, identity, command, follower):
                        if not isinstance(command, Resume):
                            return follower.must_exist()
                        resumed = True
                        limit.reschedule(asyncio.get_running_loop().time() + LOOK_ON_S)
                    continue
                detail = follower.must_exist()
                _must_allow(detail, command)
                await append(log, follower.reading.at, CommandRecord(id=identity, body=command))
                appended = True
                if not wait:
                    return detail
    except TimeoutError:
        if resumed:
            return follower.must_exist()
        raise TimedOut(
            f"Run {follower.run} has not ended within {patience}." if appended else "The run log was not read in time.",
            code=NOT_IN_TIME,
            why="The command is in the run log; the owner of the partition carries it out." if appended else "",
            do="Is a service running? `headrace run watch` waits on." if appended else "Give a longer --timeout.",
        ) from None
    raise AssertionError("a partition has no last record")


def _must_allow(detail: RunDetail, command: Command) -> None:
    summary = detail.summary
    if summary.ended_at is not None:
        message = f"Run {summary.id} has ended already: {summary.status} at {summary.ended_at}."
        do = (
            "`headrace run retry` does a failed one again." if summary.status in RETRIABLE else "Nothing is left to do."
        )
        raise Conflict(message, code=WRONG_STATE, do=do)
    if isinstance(command, Resume) and summary.status != "parked":
        message = f"Run {summary.id} is {summary.status}, not parked."
        raise Conflict(message, code=WRONG_STATE, do="It goes on by itself: see `headrace run watch`.")


def _is_done(seen: Seen, identity: ClientId, command: Command, follower: Follower) -> bool:
    if isinstance(seen.record, CommandRecord) and seen.record.id == identity:
        if seen.folded.without_effect:  # another record came in between
            _must_allow(follower.must_exist(), command)
        if isinstance(command, Resume):
            return True
    ended = follower.ended
    if ended is not None and isinstance(command, Cancel) and ended.summary.status == RunStatus.SUCCEEDED:
        _must_allow(ended, command)
    return ended is not None


async def append(log: Log, at: TopicPartition, record: CommandRecord) -> None:
    """Append a command, again if nobody knows whether it is there."""
    for tries_left in reversed(range(APPEND_TRIES)):
        try:
            await log.append(at, [NewRecord(encode(record))])
        except (AppendFailed, LogUnavailable):
            if not tries_left:
                raise
            await asyncio.sleep(_APPEND_WAIT_S)
        else:
            return


def report(run: str, verb: str, detail: RunDetail, common: Common) -> None:
    """The answer of a command."""
    show_one({"id": run, "command": verb, "status": detail.summary.status}, common.output, name="id")
