"""The one writer of a process: what the feeders have ready goes into one transaction, each partition with its position. A database that is away is waited for.

    put ──► waits for its turn ──► written and committed ──► True
                                └─ the database does not stand where the rows begin ──► False

Never drops anything: memory is bounded by who puts (`feeder.py`).
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.observability import observer as told
from headrace.observability.label import Dependency
from headrace.service.history.database import HistoryUnavailable
from headrace.service.history.writing import Writing
from headrace.topics.back_off import BackOff
from headrace.topics.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.observability.observer import Observer
    from headrace.service.history.database import Database
    from headrace.service.history.rows import Rows

_BACK_OFF_S = (0.2, 10.0)
_ROWS_MAX = 20_000  # in one transaction, once there is more than one partition's
_Waiting = tuple["Rows", "asyncio.Future[bool]"]


class Outage:
    """The database is away, from the first failure to the next success: said once at each end."""

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer = observer
        self._name = name
        self._back_off = BackOff(_BACK_OFF_S)
        self._began: float | None = None

    @property
    def on(self) -> bool:
        """Whether it is away."""
        return self._began is not None

    async def wait(self, error: Transient) -> None:
        """A try failed."""
        wait_s = self._back_off.next_s()
        if self._began is None:
            self._began = perf_counter()
            self._observer.outage_began(
                told.OutageBegan(
                    dependency=Dependency.HISTORY,
                    name=self._name,
                    message=f"{error.code} {error.message}",
                    retry_after_ms=wait_s * 1000,
                )
            )
        await asyncio.sleep(wait_s)

    def over(self) -> None:
        """A try went well."""
        self._back_off.reset()
        if self._began is not None:
            duration_ms = (perf_counter() - self._began) * 1000
            self._began = None
            self._observer.outage_ended(
                told.OutageEnded(dependency=Dependency.HISTORY, name=self._name, duration_ms=duration_ms)
            )


class HistoryWriter:
    """`put` from any task; `run` is the task that writes."""

    def __init__(self, database: Database, outage: Outage) -> None:
        self._database = database
        self._outage = outage
        self._writing = Writing(database)
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
            answers = [await self._writing.write(connection, rows) for rows in turn]
            await connection.commit()
        return answers
