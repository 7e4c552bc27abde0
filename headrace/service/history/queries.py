"""`SqlQueries`: what `RunQueries` promises, out of the tables. Every question has an index; pages go on behind a place, they never count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import fields
from sqlalchemy import and_, func, or_, select

from headrace.service.history.rows import MORE_OF_DETAIL, MORE_OF_SUMMARY, OF_DETAIL, OF_SUMMARY
from headrace.service.history.tables import KEY_CHARS, gaps, records, runs
from headrace.service.run_view.history_entry import HistoryEntry
from headrace.service.run_view.queries import HistoryPage, HistoryPlace, RunCount, RunCounts, RunPage
from headrace.service.run_view.run_detail import OpenStep, RunDetail
from headrace.service.run_view.summary import RunPlace, RunSummary
from headrace.topics.event import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Row

    from headrace.service.history.database import Database
    from headrace.service.history.link import HistoryLag
    from headrace.service.run_view.summary import RunFilter

BEHIND_S = 10.0
"""A history that is further behind says so in every answer."""
_GAPS = 3  # that are named; more are counted

_entry = msgspec.json.Decoder(HistoryEntry).decode
_waiting = msgspec.json.Decoder(tuple[OpenStep, ...]).decode


class SqlQueries:
    """See `RunQueries`. Raises `HistoryUnavailable`."""

    def __init__(self, database: Database, lag: Callable[[], HistoryLag]) -> None:
        self._database = database
        self._lag = lag

    async def runs(self, wanted: RunFilter) -> RunPage:
        """See `RunQueries`."""
        query = select(*_COLUMNS).where(*_conditions(wanted)).order_by(runs.c.started_at_ms.desc(), runs.c.id)
        if wanted.after is not None:
            after = wanted.after
            same = and_(runs.c.started_at_ms == after.started_at_ms, runs.c.id > after.id)
            query = query.where(runs.c.started_at_ms <= after.started_at_ms).where(
                or_(runs.c.started_at_ms < after.started_at_ms, same)
            )
        if wanted.limit:
            query = query.limit(wanted.limit + 1)
        async with self._database.asking() as connection:
            found = (await connection.execute(query)).all()
            notes = await self._notes(connection)
        more = bool(wanted.limit) and len(found) > wanted.limit
        page = found[: wanted.limit] if more else found
        last = RunPlace(page[-1].started_at_ms, page[-1].id) if more else None
        return RunPage(runs=tuple(map(_summary, page)), next=last, notes=notes)

    async def run(self, run: str) -> RunDetail | None:
        """See `RunQueries`."""
        async with self._database.asking() as connection:
            found = (await connection.execute(select(runs).where(runs.c.id == run))).one_or_none()
        return None if found is None else _detail(found)

    async def history(self, run: str, *, start: HistoryPlace | None = None, limit: int = 0) -> HistoryPage | None:
        """See `RunQueries`."""
        place = (records.c.log_offset, records.c.n)
        query = select(*place, records.c.entry).where(records.c.run == run).order_by(*place)
        if start is not None:
            later = and_(records.c.log_offset == start.offset, records.c.n >= start.index)
            query = query.where(or_(records.c.log_offset > start.offset, later))
        if limit:
            query = query.limit(limit + 1)
        async with self._database.asking() as connection:
            if (await connection.execute(select(runs.c.id).where(runs.c.id == run))).one_or_none() is None:
                return None
            found = (await connection.execute(query)).all()
            notes = await self._notes(connection, partition=int(run.partition(".")[0]))
        more = bool(limit) and len(found) > limit
        behind = HistoryPlace(found[limit].log_offset, found[limit].n) if more else None
        page = found[:limit] if more else found
        return HistoryPage(entries=tuple(_entry(row.entry) for row in page), next=behind, notes=notes)

    async def counts(self, wanted: RunFilter) -> RunCounts:
        """See `RunQueries`."""
        of = (runs.c.namespace, runs.c.workflow, runs.c.version, runs.c.status)
        query = select(*of, func.count().label("runs")).where(*_conditions(wanted)).group_by(*of).order_by(*of)
        async with self._database.asking() as connection:
            found = (await connection.execute(query)).all()
            notes = await self._notes(connection)
        counts = [
            RunCount(
                namespace=row.namespace, workflow=row.workflow, version=row.version, status=row.status, runs=row.runs
            )
            for row in found
        ]
        return RunCounts(counts=tuple(counts), notes=notes)

    async def _notes(self, connection: Any, partition: int | None = None) -> tuple[str, ...]:
        """What may be missing, for people."""
        query = select(gaps).order_by(gaps.c.at_ms.desc())
        if partition is not None:
            query = query.where(gaps.c.partition == partition)
        found = (await connection.execute(query.limit(_GAPS + 1))).all()
        notes = [_said(gap) for gap in found[:_GAPS]]
        if len(found) > _GAPS:
            notes.append("There are older gaps.")
        lag = self._lag()
        if lag.seconds > BEHIND_S:
            notes.append(f"The history is {lag.seconds:.0f} s behind: the newest runs may be missing.")
        return tuple(notes)


def _said(gap: Row[Any]) -> str:
    span = f"Records {gap.first_offset} to {gap.behind_offset - 1} of run-log partition {gap.partition}"
    if gap.kind == "trimmed":
        return f"{span} were trimmed before the history read them: runs of that time may be missing, or their end."
    return f"{span} were lost by the log after the history had read them: it shows what the log has."


def _conditions(wanted: RunFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.statuses:
        statuses = sorted(wanted.statuses)
        found.append(runs.c.status == statuses[0] if len(statuses) == 1 else runs.c.status.in_(statuses))
    if wanted.workflow is not None:
        namespace, slash, name = wanted.workflow.partition("/")
        plain = runs.c.workflow == wanted.workflow
        found.append(or_(plain, and_(runs.c.namespace == namespace, runs.c.workflow == name)) if slash else plain)
    if wanted.key is not None:
        found.append(func.substr(runs.c.key, 1, KEY_CHARS) == wanted.key[:KEY_CHARS])
        found.append(runs.c.key == wanted.key)
    if wanted.parent is not None:
        found += [runs.c.parent == wanted.parent, runs.c.parent != ""]  # as the index says
    if wanted.since_ms is not None:
        found.append(runs.c.started_at_ms >= wanted.since_ms)
    return found


# --- rows to values ----------------------------------------------------------------------------------------------------


class _More(msgspec.Struct):
    """Fields without a column of their own."""

    summary: dict[str, msgspec.Raw] = {}
    detail: dict[str, msgspec.Raw] = {}


_read_more = msgspec.json.Decoder(_More).decode
_MORE_OF_SUMMARY = {each.name: each.type for each in fields(RunSummary) if each.name in MORE_OF_SUMMARY}
_MORE_OF_DETAIL = {each.name: each.type for each in fields(RunDetail) if each.name in MORE_OF_DETAIL}
_COLUMNS = [runs.c[name] for name in (*OF_SUMMARY, "id", "started_at_ms", "ended_at_ms", "more")]


def _known(found: dict[str, msgspec.Raw], types: dict[str, Any]) -> dict[str, Any]:
    """Those that this version knows; what the row's writer did not know is left to its default."""
    return {name: msgspec.json.decode(value, type=types[name]) for name, value in found.items() if name in types}


def _summary(row: Row[Any]) -> RunSummary:
    values = {name: getattr(row, name) for name in OF_SUMMARY}
    return RunSummary(
        id=row.id,
        started_at=format_time(row.started_at_ms),
        ended_at=None if row.ended_at_ms is None else format_time(row.ended_at_ms),
        **values,
        **_known(_read_more(row.more).summary, _MORE_OF_SUMMARY),
    )


def _detail(row: Row[Any]) -> RunDetail:
    return RunDetail(
        summary=_summary(row),
        input=msgspec.Raw(row.input.encode()),
        result=None if row.result is None else msgspec.Raw(row.result.encode()),
        waiting=_waiting(row.waiting),
        **{name: getattr(row, name) for name in OF_DETAIL},
        **_known(_read_more(row.more).detail, _MORE_OF_DETAIL),
    )
