"""Answers about runs out of the history, and out of the run log about a run that the history has not read yet, or while it is away.

The history follows the log within a second, mostly. A client that has just started a run and asks for it must not hear that there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.topics.errors import Transient

if TYPE_CHECKING:
    from headrace.service.run_view.queries import HistoryPage, HistoryPlace, RunCounts, RunPage, RunQueries
    from headrace.service.run_view.run_detail import RunDetail
    from headrace.service.run_view.summary import RunFilter


class FreshQueries:
    """See `RunQueries`. `log` is asked only for single runs."""

    def __init__(self, history: RunQueries, log: RunQueries) -> None:
        self._history = history
        self._log = log

    async def runs(self, wanted: RunFilter) -> RunPage:
        """See `RunQueries`."""
        return await self._history.runs(wanted)

    async def run(self, run: str) -> RunDetail | None:
        """See `RunQueries`."""
        try:
            found = await self._history.run(run)
        except Transient:
            found = None
        return await self._log.run(run) if found is None else found

    async def history(self, run: str, *, start: HistoryPlace | None = None, limit: int = 0) -> HistoryPage | None:
        """See `RunQueries`."""
        try:
            found = await self._history.history(run, start=start, limit=limit)
        except Transient:
            found = None
        return await self._log.history(run, start=start, limit=limit) if found is None else found

    async def counts(self, wanted: RunFilter) -> RunCounts:
        """See `RunQueries`."""
        return await self._history.counts(wanted)
