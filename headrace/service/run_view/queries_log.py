"""Answers about runs out of the run log: what `run list|get|history|count` print, and what the API says where there is no history.

Each answer reads partitions from their oldest checkpoint, or from their start: fit for a small log. One is read at a time, others wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from headrace.service.names import Names
from headrace.service.run_view.missing import trimmed, unread
from headrace.service.run_view.queries import HistoryPage, HistoryPlace, RunCount, RunCounts, RunPage
from headrace.service.run_view.run_history import RunHistory
from headrace.service.run_view.scan import scan
from headrace.service.run_view.summary import RunFilter, Summaries, place_of
from headrace.topics.identity import partition_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from headrace.service.run_view.history_entry import HistoryEntry
    from headrace.service.run_view.run_detail import RunDetail
    from headrace.service.run_view.scan import Seen
    from headrace.service.settings import Settings
    from headrace.topics.errors import Fatal
    from headrace.topics.log import Log


class LogQueries:
    """`RunQueries` over a log that is opened for each answer: nobody else may read it meanwhile, as it has one reader for each partition."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Log]], settings: Settings) -> None:
        self._opened = opened
        self._settings = settings
        self._turn = asyncio.Lock()

    async def runs(self, wanted: RunFilter) -> RunPage:
        """See `RunQueries`."""
        more = msgspec.structs.replace(wanted, limit=wanted.limit + 1 if wanted.limit else 0)
        summaries, notes = await self._summaries(more)
        found = summaries.newest_first()
        if not wanted.limit or len(found) <= wanted.limit:
            return RunPage(runs=tuple(found), notes=notes)
        page = found[: wanted.limit]
        return RunPage(runs=tuple(page), next=place_of(page[-1]), notes=notes)

    async def run(self, run: str) -> RunDetail | None:
        """See `RunQueries`."""
        found = await self._history(run, keep_entries=False)
        return None if found is None else found[0].detail

    async def history(self, run: str, *, start: HistoryPlace | None = None, limit: int = 0) -> HistoryPage | None:
        """See `RunQueries`."""
        found = await self._history(run, keep_entries=True)
        if found is None or found[0].detail is None:
            return None
        return page_of(found[0].entries, start, limit, found[1])

    async def counts(self, wanted: RunFilter) -> RunCounts:
        """See `RunQueries`."""
        summaries, notes = await self._summaries(msgspec.structs.replace(wanted, limit=1, after=None))
        rows = [
            RunCount(namespace=namespace, workflow=workflow, version=version, status=status, runs=runs)
            for (namespace, workflow, version, status), runs in sorted(summaries.counts.items())
        ]
        return RunCounts(counts=tuple(rows), notes=notes)

    async def _summaries(self, wanted: RunFilter) -> tuple[Summaries, tuple[str, ...]]:
        summaries = Summaries(wanted)
        async with self._turn, self._opened() as log:
            problems = await scan(log, self._settings, summaries)
        notes = unread(problems)
        if summaries.trimmed_at_ms is not None:
            notes += (trimmed("Runs that ended", summaries.trimmed_at_ms),)
        return summaries, notes

    async def _history(self, run: str, *, keep_entries: bool) -> tuple[RunHistory, tuple[str, ...]] | None:
        async with self._turn, self._opened() as log:
            partition = partition_in(run)
            if partition is None or partition >= await log.partitions(Names(self._settings.app.name).runs):
                return None
            found, problems = await read_run(log, self._settings, run, partition, keep_entries=keep_entries)
        return found, unread(problems)


async def read_run(
    log: Log, settings: Settings, run: str, partition: int, *, keep_entries: bool = True
) -> tuple[RunHistory, tuple[Fatal, ...]]:
    """Everything that the log has about a run: only its own partition is read. Its `detail` is None if that is nothing."""
    found = RunHistory(run, keep_entries=keep_entries)
    problems = await scan(log, settings, _Only(found), only=(partition,))
    return found, problems


def page_of(
    entries: Sequence[HistoryEntry], start: HistoryPlace | None, limit: int, notes: tuple[str, ...]
) -> HistoryPage:
    """The entries from `start` on, at most `limit` of them (0: all)."""
    places = _places(entries)
    first = 0 if start is None else next((n for n, place in enumerate(places) if place >= start), len(places))
    behind = first + limit if limit else len(places)
    return HistoryPage(
        entries=tuple(entries[first:behind]),
        next=places[behind] if behind < len(places) else None,
        notes=notes,
    )


def _places(entries: Sequence[HistoryEntry]) -> list[HistoryPlace]:
    places: list[HistoryPlace] = []
    for entry in entries:
        again = bool(places) and places[-1].offset == entry.offset
        places.append(HistoryPlace(entry.offset, places[-1].index + 1 if again else 0))
    return places


class _Only:
    """A scan's watcher that hands records on and keeps no answer."""

    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self.begin = history.begin
        self.end = history.end

    def see(self, seen: Seen) -> None:
        self._history.see(seen)
