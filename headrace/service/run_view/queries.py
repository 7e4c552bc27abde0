"""`RunQueries`: what may be asked about runs, whoever answers: the run log itself (`queries_log.py`), or the history in SQL.

Answers are values; nothing here knows HTTP, SQL or the log. Called by the API. Raise `LogUnavailable` (or another `Transient`) while nobody can answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from headrace.service.run_view.history_entry import HistoryEntry
    from headrace.service.run_view.run_detail import RunDetail
    from headrace.service.run_view.summary import RunFilter, RunPlace, RunSummary


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some runs, newest first. `next`: where the page behind it begins, None where nothing is left.

    `notes` are sentences for people about what may be missing: a trimmed log, a partition that cannot be read.
    """

    runs: tuple[RunSummary, ...]
    next: RunPlace | None = None
    notes: tuple[str, ...] = ()


class RunCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs a version of a workflow has in one status."""

    namespace: str
    workflow: str
    version: str
    status: str
    runs: int


class RunCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Runs by workflow, version and status, in that order; what is 0 is left out."""

    counts: tuple[RunCount, ...]
    notes: tuple[str, ...] = ()


class HistoryPlace(msgspec.Struct, frozen=True, order=True):
    """A place in a run's history: a record's offset, and which of its entries (a record may make several)."""

    offset: int
    index: int = 0


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some entries of one run's history, oldest first. `next`: where the page behind it begins."""

    entries: tuple[HistoryEntry, ...]
    next: HistoryPlace | None = None
    notes: tuple[str, ...] = ()


class RunQueries(Protocol):
    """Answers about runs. Every call is independent; several may be open at once."""

    async def runs(self, wanted: RunFilter) -> RunPage:
        """Runs that fit the filter, newest first: from behind `wanted.after` on, at most `wanted.limit` (0: all)."""
        ...

    async def run(self, run: str) -> RunDetail | None:
        """One run in full; None: nothing is known of it, or that is no run id."""
        ...

    async def history(self, run: str, *, start: HistoryPlace | None = None, limit: int = 0) -> HistoryPage | None:
        """Every record of a run from `start` on, at most `limit` (0: all); None: nothing is known of the run."""
        ...

    async def counts(self, wanted: RunFilter) -> RunCounts:
        """Count the runs that fit the filter; its limit and place do not matter."""
        ...
