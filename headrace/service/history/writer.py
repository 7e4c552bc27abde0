"""The one writer of a process: what the feeders have ready goes into one transaction, each partition with its position. A database that is away is waited for.

    put ──► waits for its turn ──► written and committed ──► True
                                └─ the database does not stand where the rows begin ──► False

Never drops anything: memory is bounded by who puts (`feeder.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.service.history.database import HistoryUnavailable
from headrace.service.history.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.history.database import Database
    from headrace.service.history.outage import Outage
    from headrace.service.history.rows import Rows

_ROWS_MAX = 20_000  # in one transaction, once there is more than one partition's
_Waiting = tuple["Rows", "asyncio.Future[bool]"]


class HistoryWriter:
    """`put` from any task; `run` is the task that writes."""

    def __init__(self, database: Database, outage: Outage) -> None:
        self._database = database
        self._outage = outage
        self._statements = Statements(database)
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()

    async def put(self, rows: Rows) -> bool:
        """Return when the rows are committed; False if they do not fit to what is there."""
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((rows, written))
        self._wake.set()
        return await written

    async def run(self) -> None:
        """Write, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                if turn := self._turn():
                    await self._write(turn)

    def _turn(self) -> list[_Waiting]:
        """What goes into the next transaction: at least one partition's rows."""
        count, taken = 0, 0
        for rows, _ in self._queue:
            count += rows.count
            if taken and count > _ROWS_MAX:
                break
            taken += 1
        turn, self._queue = self._queue[:taken], self._queue[taken:]
        return [(rows, written) for rows, written in turn if not written.done()]

    async def _write(self, turn: list[_Waiting]) -> None:
        """One transaction. If it fails, one for each: what the database refuses of one partition holds up no other."""
        try:
            answers = await self._commit([rows for rows, _ in turn])
        except HistoryUnavailable as error:
            if len(turn) > 1:
                for one in turn:
                    await self._write([one])
            else:
                await self._outage.wait(error)
                self._queue += turn  # behind the others
            return
        self._outage.over()
        for (_, written), answer in zip(turn, answers, strict=True):
            if not written.done():
                written.set_result(answer)

    async def _commit(self, turn: Sequence[Rows]) -> list[bool]:
        async with self._database.feeding() as connection:
            answers = [await self._statements.write(connection, rows) for rows in turn]
            await connection.commit()
        return answers
