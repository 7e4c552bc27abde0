"""Retention: runs that ended long ago are deleted, with their records: those of the partitions that are fed here, a few at a time, so that nobody waits."""

from __future__ import annotations

import asyncio
from time import time_ns
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from headrace.service.history.database import HistoryUnavailable
from headrace.service.history.tables import gaps, records, runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.history.database import Database

EVERY_S = 60.0
_SLICE = 200  # runs in one transaction
_PAUSE_S = 0.1


class Retention:
    """`run` is its task."""

    def __init__(self, database: Database, retention_ms: int, partitions: Callable[[], frozenset[int]]) -> None:
        self._database = database
        self._retention_ms = retention_ms
        self._partitions = partitions

    async def run(self) -> None:
        """Delete what is too old, every minute, for ever."""
        while True:
            try:
                await self.sweep(time_ns() // 1_000_000)
            except HistoryUnavailable:
                pass  # who writes says so
            await asyncio.sleep(EVERY_S)

    async def sweep(self, now_ms: int) -> int:
        """Delete what ended longer ago than the retention. The number of runs. Raises `HistoryUnavailable`."""
        before_ms, deleted = now_ms - self._retention_ms, 0
        for partition in sorted(self._partitions()):
            while count := await self._slice(partition, before_ms):
                deleted += count
                await asyncio.sleep(_PAUSE_S)
        return deleted

    async def _slice(self, partition: int, before_ms: int) -> int:
        old = (
            select(runs.c.id)
            .where(runs.c.partition == partition, runs.c.ended_at_ms < before_ms)
            .order_by(runs.c.ended_at_ms)
            .limit(_SLICE)
        )
        async with self._database.feeding() as connection:
            ids = (await connection.execute(old)).scalars().all()
            if ids:
                await connection.execute(delete(records).where(records.c.run.in_(ids)))
                await connection.execute(delete(runs).where(runs.c.id.in_(ids)))
            await connection.execute(delete(gaps).where(gaps.c.partition == partition, gaps.c.at_ms < before_ms))
            await connection.commit()
        return len(ids)
