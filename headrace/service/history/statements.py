"""The statements that put `Rows` into the tables, in the transaction that is open. In slices: the loop has other work between them. Called by `writer.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, exists, select, update

from headrace.service.history.rows import UNKNOWN
from headrace.service.history.tables import gaps, positions, records, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from headrace.service.history.database import Database
    from headrace.service.history.rows import Row, Rows

_SLICE = 200  # rows in one statement: some 2 ms of the loop
_NEVER_CHANGES = frozenset(
    {"id", "partition", "start_offset", "namespace", "workflow", "version", "key", "trigger", "source"}
    | {"started_at_ms", "retry_of", "parent", "trace_id", "producer_trace_id", "input"}
)


class Statements:
    """The statements of one dialect, made once."""

    def __init__(self, database: Database) -> None:
        new = database.insert(runs)
        self._begin = new.on_conflict_do_update(
            index_elements=[runs.c.id],
            set_={column.name: new.excluded[column.name] for column in runs.c if column.name != "id"},
        )
        changes: dict[str, Any] = {
            column.name: bindparam(column.name) for column in runs.c if column.name not in _NEVER_CHANGES
        }
        changes |= {name: runs.c[name] + bindparam(name) for name in ("attempts", "retries")}
        self._change = update(runs).where(runs.c.id == bindparam("b_id")).values(changes)
        self._record = database.insert(records).on_conflict_do_nothing()
        names = [column.name for column in records.c]
        values = [bindparam(column.name, type_=column.type).label(column.name) for column in records.c]
        there = exists().where(runs.c.id == bindparam("run", type_=runs.c.id.type))
        self._stray = database.insert(records).from_select(names, select(*values).where(there)).on_conflict_do_nothing()
        self._flag = (
            update(runs)
            .where(runs.c.id == bindparam("b_id"))
            .values(retriable=bindparam("retriable"), retry=bindparam("retry"))
        )
        self._lose = (
            update(runs)
            .where(runs.c.id == bindparam("b_id"))
            .values(status=UNKNOWN, ended_at_ms=bindparam("at_ms"), message=bindparam("said"), waiting="[]")
        )
        self._place = database.insert(positions).on_conflict_do_nothing()
        self._gap = database.insert(gaps).on_conflict_do_nothing()

    async def write(self, connection: AsyncConnection, rows: Rows) -> bool:
        """False: the database does not stand at `rows.before`, somebody else has fed it. Nothing was written then."""
        if not await self._moved(connection, rows):
            return False
        if rows.forget_from is not None:
            await self._forget(connection, rows.partition, rows.forget_from)
        if rows.unflag:
            await connection.execute(
                update(runs)
                .where(runs.c.partition == rows.partition, runs.c.retriable)
                .values(retriable=False, retry="")
            )
        await _all(connection, self._begin, rows.begun)
        await _all(connection, self._change, rows.changed)
        await _all(connection, self._record, rows.records)
        await _all(connection, self._stray, rows.strays)
        await _all(connection, self._flag, rows.flags)
        await _all(connection, self._lose, rows.lost)
        if rows.gap is not None:
            gap = rows.gap
            values = {"first_offset": gap.first, "behind_offset": gap.behind, "kind": gap.kind, "at_ms": gap.at_ms}
            await connection.execute(self._gap.values(partition=rows.partition, **values))
        return True

    async def _moved(self, connection: AsyncConnection, rows: Rows) -> bool:
        values = {
            "next_offset": rows.after,
            "log": rows.log,
            "as_of": rows.checkpoint.as_of,
            "checkpoint": rows.checkpoint.first,
            "at_ms": rows.at_ms,
        }
        at = positions.c.partition == rows.partition
        move = update(positions).where(at, positions.c.next_offset == rows.before).values(values)
        if rows.log:
            move = move.where(positions.c.log.in_(("", rows.log)))
        if (await connection.execute(move)).rowcount == 1:
            return True
        if rows.before:
            return False
        first = self._place.values(partition=rows.partition, **values)
        return (await connection.execute(first)).rowcount == 1

    async def _forget(self, connection: AsyncConnection, partition: int, offset: int) -> None:
        here = select(runs.c.id).where(runs.c.partition == partition)
        await connection.execute(delete(records).where(records.c.log_offset >= offset, records.c.run.in_(here)))
        await connection.execute(delete(runs).where(runs.c.partition == partition, runs.c.start_offset >= offset))


async def _all(connection: AsyncConnection, statement: Any, rows: Sequence[Row]) -> None:
    for first in range(0, len(rows), _SLICE):
        await connection.execute(statement, rows[first : first + _SLICE])
