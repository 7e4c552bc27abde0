"""Commands for one run, carried out and seen to have taken effect: cancel, resume, retry, dismiss. Called by the command line and by the API.

A command is appended with an identity of its own: sent twice, it takes effect once. What it did is read back from the run log, from this command's own record
on, so the answer is what every owner will see. Whoever runs the partition need not be this process.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.retry import RETRIABLE, kept_of
from headrace.service.names import Names
from headrace.service.request_error import Conflict, NotFound, TimedOut
from headrace.service.run_view.run_history import RunHistory
from headrace.service.run_view.scan import Reading
from headrace.service.sent_command import NOT_IN_TIME, append, new_identity, sent
from headrace.topics.command import Cancel, Dismiss, OnConflict, Resume, Retry
from headrace.topics.identity import ClientId, partition_in, run_id
from headrace.topics.log import TopicPartition
from headrace.topics.outcome import RunStatus
from headrace.topics.run_record import CommandRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headrace.service.run_view.run_detail import RunDetail
    from headrace.service.run_view.scan import Seen
    from headrace.service.settings import Settings
    from headrace.topics.command import Command
    from headrace.topics.log import Log

UNKNOWN_RUN = "HR4101"
WRONG_STATE = "HR4102"
PARKED_AGAIN = "HR4104"
UNKNOWN_TASK = "HR4105"
LOOK_ON_S = 1.0  # after a resume: code that still does not fit the log parks the run again within milliseconds


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """A retry has begun: the new run's id, and of how many steps it has the results."""

    id: str
    copied: int


async def cancel(
    log: Log, settings: Settings, run: str, *, reason: str = "", patience_s: float | None, wait: bool = True
) -> RunDetail:
    """End a run: open steps are cancelled, finished tasks undone. Without `wait` it is as it was before.

    Raises NotFound, Conflict (it has ended), TimedOut.
    """
    follower = await Follower.of(log, settings, run)
    return await _carried_out(log, follower, Cancel(run=run, reason=reason), patience_s=patience_s, wait=wait)


async def resume(log: Log, settings: Settings, run: str, *, patience_s: float | None, wait: bool = True) -> RunDetail:
    """Bring a parked run back. Raises NotFound, Conflict (it is not parked, or is parked again), TimedOut."""
    follower = await Follower.of(log, settings, run)
    detail = await _carried_out(log, follower, Resume(run=run), patience_s=patience_s, wait=wait)
    if wait and detail.summary.status == "parked":
        raise Conflict(
            f"Run {run} was resumed, and parked again: {detail.summary.parked}.",
            code=PARKED_AGAIN,
            why=f"At {detail.parked_step} the log has: {detail.expected}. The code did: {detail.found}."
            if detail.parked_step
            else f"Expected {detail.expected}; {detail.found}.",
            do="Mend the code, start the service with it, and resume once more.",
        )
    return detail


async def retry(
    log: Log, settings: Settings, run: str, *, from_task: str | None = None, patience_s: float | None
) -> Retried:
    """Begin a new run in place of a failed one. Raises NotFound (run, task), Conflict, TimedOut."""
    follower = await Follower.of(log, settings, run)

    def allowed() -> Retry:
        return Retry(run=run, from_step=_may_retry(follower, from_task))

    identity, seen = await sent(log, follower.reading, allowed, see=follower.history.see, patience_s=patience_s)
    if seen.folded.without_effect:  # another record came in between
        _may_retry(follower, from_task)
        raise Conflict(f"Run {run} could not be retried.", code=WRONG_STATE, do="See `headrace run get`.")
    new = run_id(follower.reading.at.partition, identity)
    open_run = follower.reading.state.runs.get(new)
    copies = len(open_run.retried.copied) if open_run is not None and open_run.retried is not None else 0
    return Retried(id=new, copied=copies)


async def dismiss(log: Log, settings: Settings, run: str, *, patience_s: float | None) -> None:
    """Forget what is kept of a failed run for a retry. Raises NotFound, Conflict, TimedOut."""
    follower = await Follower.of(log, settings, run)

    def allowed() -> Dismiss:
        _must_be_kept(follower)
        return Dismiss(run=run)

    _, seen = await sent(log, follower.reading, allowed, see=follower.history.see, patience_s=patience_s)
    if seen.folded.without_effect:
        _must_be_kept(follower)


class Follower:
    """One run's partition, read from its start on."""

    def __init__(self, history: RunHistory, reading: Reading) -> None:
        self.run = history.run
        self.reading = reading
        self.history = history

    @classmethod
    async def of(cls, log: Log, settings: Settings, run: str) -> Follower:
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


def partition_of_run(run: str, partitions: int, topic: str) -> int:
    """The partition inside a run id, or `NotFound`."""
    partition = partition_in(run)
    if partition is None:
        raise NotFound(
            f"{run!r} is not a run id.",
            code=UNKNOWN_RUN,
            why="A run id is a partition's number, a dot and 20 hexadecimal digits.",
            do="See `headrace run list`.",
        )
    if partition >= partitions:
        raise unknown_run(run, topic)
    return partition


def unknown_run(run: str, topic: str, *, trimmed_before: int = 0) -> NotFound:
    """The run log knows nothing of this run."""
    return NotFound(
        f"{topic} has no run {run}.",
        code=UNKNOWN_RUN,
        why=f"If it had ended by then: records before offset {trimmed_before} of its partition were trimmed."
        if trimmed_before
        else "",
        do="See `headrace run list`; is app.name right?",
    )


# --- cancel and resume ------------------------------------------------------------------------------------------------


async def _carried_out(
    log: Log, follower: Follower, command: Cancel | Resume, *, patience_s: float | None, wait: bool
) -> RunDetail:
    """Append the command once the run's present state allows it, and follow until it took effect."""
    identity = new_identity()
    appended = resumed = False
    limit = asyncio.timeout(patience_s)
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
            f"Run {follower.run} has not ended within {patience_s or 0:g} s."
            if appended
            else "The run log was not read in time.",
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


# --- retry and dismiss ------------------------------------------------------------------------------------------------


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
            code=UNKNOWN_TASK,
            why=f"These were: {', '.join(steps) or 'none'}.",
            do="Name one of them; without --from everything that has finished is copied.",
        )
    return found
