"""`RunSummary`: one run in one line; and `Summaries`, which makes them while the run log is scanned."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.instruction import Close
from headrace.service.engine.run_state import Phase
from headrace.topics.command import Deliver
from headrace.topics.event import format_time, parse_time
from headrace.topics.outcome import AttemptFailed, AttemptSucceeded
from headrace.topics.run_record import CommandRecord, OutcomeRecord

if TYPE_CHECKING:
    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.scan import Seen
    from headrace.topics.outcome import RunEnded

RUNNING = "running"
STATUSES = ("running", "queued", "parked", "succeeded", "failed", "cancelled", "timed_out", "compensated")
"""What `status` may be: an open run's phase, or how it ended."""

_ROOM = 2  # times the limit: how many summaries wait for the next sorting


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times are RFC 3339 in UTC; `source` is `topic/partition/offset`; `attempts` counts all tasks' finished
    attempts.

    This is the JSON of `run list`; keys are added, never renamed.
    """

    id: str
    workflow: str
    namespace: str
    version: str
    status: str
    key: str | None
    trigger: str
    source: str | None
    started_at: str
    ended_at: str | None
    duration_ms: int | None
    attempts: int
    retries: int
    error: str
    message: str
    failed_step: str
    parked: str
    retry_of: str = ""
    parent: str = ""  # the run whose child it is
    retriable: bool = False  # it failed, and was neither dismissed nor forgotten since
    waits_for: str = ""  # "approval": it is open and waits for somebody's decision


class RunPlace(msgspec.Struct, frozen=True):
    """A run's place in the order of lists: newest first, of equal times by id."""

    started_at_ms: int
    id: str


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are wanted: empty and None mean any. `limit` 0 means all; `after`: only runs behind that place."""

    statuses: frozenset[str] = frozenset()
    workflow: str | None = None
    key: str | None = None
    parent: str | None = None  # only children of this run
    since_ms: int | None = None  # started at or after, since the epoch
    limit: int = 0
    after: RunPlace | None = None


class Tally(msgspec.Struct):
    """What an open run's attempts have come to."""

    attempts: int = 0
    retries: int = 0


class Tallies:
    """Counts attempts of open runs."""

    def __init__(self) -> None:
        self._open: dict[str, Tally] = {}

    def see(self, seen: Seen) -> None:
        """Count the record if it ends an attempt and has an effect."""
        body = _attempt(seen)
        if body is None or seen.folded.skip is not None or seen.folded.without_effect:
            return
        tally = self._open.setdefault(body.run, Tally())
        tally.attempts += 1
        if isinstance(body, AttemptFailed) and body.retry_after_ms is not None:
            tally.retries += 1

    def begin(self, state: PartitionState) -> None:
        """Count what a checkpoint says of the runs that are open in it: steps that were given up lose their attempts."""
        for run in state.runs.values():
            tally = Tally()
            for record, _ in run.history:
                if isinstance(record, AttemptSucceeded | AttemptFailed):
                    tally.attempts += record.number
                    tally.retries += record.number - 1
            for tries in run.tries.values():
                tally.attempts += tries.failed
                tally.retries += tries.failed
            if tally.attempts:
                self._open[run.id] = tally

    def of(self, run: str) -> Tally:
        """The counts of a run so far."""
        return self._open.get(run) or Tally()

    def take(self, run: str) -> Tally:
        """The counts of a run that needs them no more."""
        return self._open.pop(run, None) or Tally()


class Summaries:
    """Collects the newest summaries that a filter lets through, and counts all of them by workflow and status."""

    def __init__(self, wanted: RunFilter) -> None:
        self._wanted = wanted
        self._tallies = Tallies()
        self._kept: list[tuple[int, RunSummary]] = []
        self._retriable: set[str] = set()
        self.counts: Counter[tuple[str, str, str, str]] = Counter()
        """Matching runs by namespace, workflow, version, status."""
        self.trimmed_at_ms: int | None = None
        """Runs that ended before this time may be missing: the log was trimmed."""

    def begin(self, state: PartitionState) -> None:
        """A partition whose log was trimmed."""
        self._tallies.begin(state)
        self.trimmed_at_ms = max(self.trimmed_at_ms or 0, state.clock_ms)

    def see(self, seen: Seen) -> None:
        """A record of a partition."""
        self._tallies.see(seen)
        for instruction in seen.folded.instructions:
            if isinstance(instruction, Close):
                self._offer(instruction.run, instruction.ended, instruction.at_ms)

    def end(self, state: PartitionState) -> None:
        """The runs that are still open at a partition's end."""
        for run in state.runs.values():
            self._offer(run, None, None)
        self._retriable.update(state.failed)

    def newest_first(self) -> list[RunSummary]:
        """The matching runs, at most the limit."""
        self._sort()
        retriable, replace = self._retriable, msgspec.structs.replace
        return [replace(summary, retriable=summary.id in retriable) for _, summary in self._kept]

    def _offer(self, run: RunState, ended: RunEnded | None, ended_at_ms: int | None) -> None:
        tally = self._tallies.take(run.id)
        if not self._matches(run, _status(run, ended)):
            return
        start = run.start
        self.counts[start.namespace, start.workflow, start.version, _status(run, ended)] += 1
        self._kept.append((run.started_at_ms, summary_of(run, tally, ended, ended_at_ms)))
        if self._wanted.limit and len(self._kept) >= _ROOM * self._wanted.limit:
            self._sort()

    def _matches(self, run: RunState, status: str) -> bool:
        wanted, start = self._wanted, run.start
        return (
            (not wanted.statuses or status in wanted.statuses)
            and (wanted.workflow is None or wanted.workflow in {start.workflow, f"{start.namespace}/{start.workflow}"})
            and (wanted.key is None or wanted.key == start.key)
            and (wanted.parent is None or (start.parent is not None and wanted.parent == start.parent.run))
            and (wanted.since_ms is None or run.started_at_ms >= wanted.since_ms)
            and (wanted.after is None or _is_behind(run, wanted.after))
        )

    def _sort(self) -> None:
        self._kept.sort(key=lambda item: (-item[0], item[1].id))
        if self._wanted.limit:
            del self._kept[self._wanted.limit :]


def summary_of(run: RunState, tally: Tally, ended: RunEnded | None, ended_at_ms: int | None) -> RunSummary:
    """One run in one line; without `ended` it is open."""
    start, event, parked = run.start, run.start.event, run.parked
    return RunSummary(
        id=run.id,
        workflow=start.workflow,
        namespace=start.namespace,
        version=start.version,
        status=_status(run, ended),
        key=start.key,
        trigger=start.trigger,
        source=None if event is None else f"{event.topic}/{event.partition}/{event.offset}",
        started_at=format_time(run.started_at_ms),
        ended_at=None if ended_at_ms is None else format_time(ended_at_ms),
        duration_ms=None if ended_at_ms is None else ended_at_ms - run.started_at_ms,
        attempts=tally.attempts,
        retries=tally.retries,
        error="" if ended is None else ended.error,
        message="" if ended is None else ended.message,
        failed_step="" if ended is None else ended.failed_step,
        parked="" if parked is None else str(parked.reason),
        retry_of="" if run.retried is None else run.retried.of,
        waits_for="approval" if run.approvals and ended is None else "",
        parent="" if start.parent is None else start.parent.run,
    )


def place_of(summary: RunSummary) -> RunPlace:
    """Where this run stands in a list."""
    return RunPlace(round(parse_time(summary.started_at).timestamp() * 1000), summary.id)


def _is_behind(run: RunState, place: RunPlace) -> bool:
    return (-run.started_at_ms, run.id) > (-place.started_at_ms, place.id)


def _status(run: RunState, ended: RunEnded | None) -> str:
    if ended is not None:
        return str(ended.status)
    return RUNNING if run.phase is Phase.OPEN else str(run.phase)


def _attempt(seen: Seen) -> AttemptSucceeded | AttemptFailed | None:
    match seen.record:
        case OutcomeRecord(body=AttemptSucceeded() | AttemptFailed() as body):
            return body
        case CommandRecord(body=Deliver(result=AttemptSucceeded() | AttemptFailed() as body)):
            return body
        case _:
            return None
