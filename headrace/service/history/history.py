"""`History`: the feeders of one process, their writer, the retention, and what there is to ask. Made by `composition.py` where `history.url` says so.

open (again and again while the database is away) ──► a feeder for every partition that is placed here ──► until the end
    └─ not usable (a newer schema, another app): said once, health is degraded, and runs go on without it
"""

from __future__ import annotations

import asyncio
import contextlib
from time import time_ns
from typing import TYPE_CHECKING

from headrace.observability import told_log
from headrace.service.history.database import Database, HistoryRefused, HistoryUnavailable
from headrace.service.history.feeder import Feeder, Overtaken
from headrace.service.history.feeder_shared import FeederShared
from headrace.service.history.link import HistoryLag
from headrace.service.history.outage import Outage
from headrace.service.history.queries import SqlQueries
from headrace.service.history.retention import Retention
from headrace.service.history.writer import HistoryWriter
from headrace.service.names import Names
from headrace.service.stop import bug
from headrace.topics.back_off import BackOff
from headrace.topics.error_group import first_error
from headrace.topics.errors import HeadraceError, SettingsError, Transient
from headrace.topics.log import OffsetOutOfRange, TopicPartition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from headrace.observability.observer import Observer
    from headrace.service.settings import Settings
    from headrace.topics.log import Log

_BACK_OFF_S = (0.5, 30.0)
_LIVED_S = 60.0  # a feeder that worked for so long begins with the shortest wait again
_LOOK_S = 5.0  # between two looks at where the log ends
_REPLAYED_S = 0.1
_FLUSHED_S = 0.05
_BUG = "HR9004"


class History:
    """See `HistoryLink`. `open_log` gives a way to the log that nobody else reads."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        observer: Observer,
        partitions: int,
        open_log: Callable[[], AbstractAsyncContextManager[Log]],
    ) -> None:
        self.moved = asyncio.Event()
        self.database = Database(url)
        self.queries = SqlQueries(self.database, self.lag)
        self._settings = settings
        self._observer = observer
        self._open_log = open_log
        self._topic = Names(settings.app.name).runs
        self._outage = Outage(observer, self.database.shown)
        self._writer = HistoryWriter(self.database, self._outage)
        self._feeder_shared = FeederShared(
            settings=settings,
            partitions=partitions,
            database=self.database,
            writer=self._writer,
            observer=observer,
            moved=self._moved,
        )
        self._placed: frozenset[int] = frozenset()
        self._feeders: dict[int, Feeder] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._open = False
        self.unfed: set[str] = set()

    async def check(self) -> None:
        """Before anything else starts: a database that can never be ours is a wrong setting. One that is away is waited for, later. Raises `SettingsError`."""
        try:
            await self.database.open(self._settings.app.name)
        except HistoryUnavailable:
            return
        except HistoryRefused as error:
            await self.database.close()
            raise SettingsError(error.message, code=error.code, why=error.why, do=error.do) from error

    def follow(self, partitions: frozenset[int]) -> None:
        """See `HistoryLink`."""
        self._placed = partitions
        self._changed.set()

    def floor(self, partition: int) -> int | None:
        """See `HistoryLink`."""
        feeder = self._feeders.get(partition)
        return None if feeder is None or feeder.position < 0 else feeder.floor

    def position(self, partition: int) -> int:
        """Everything before this offset of the run log is in the database; -1: that is not known."""
        feeder = self._feeders.get(partition)
        return -1 if feeder is None else feeder.position

    def lag(self) -> HistoryLag:
        """See `HistoryLink`. By the local clock: an estimate, for people."""
        records = 0
        oldest_ms: int | None = None
        for feeder in self._feeders.values():
            behind = max(0, feeder.end_offset - max(0, feeder.position))
            records += behind
            if behind:
                since_ms = feeder.waiting_since_ms or feeder.behind_since_ms
                if since_ms is not None:
                    oldest_ms = since_ms if oldest_ms is None else min(oldest_ms, since_ms)
        seconds = 0.0 if oldest_ms is None else max(0.0, (time_ns() // 1_000_000 - oldest_ms) / 1000)
        return HistoryLag(records, seconds)

    async def flushed(self) -> None:
        """See `HistoryLink`."""
        if not self._open or self._outage.on:
            return
        places = [feeder.at for feeder in self._feeders.values()]
        try:
            async with self._open_log() as log:
                ends = await log.offsets(places)
        except HeadraceError:
            return
        while not self._outage.on and any(  # noqa: ASYNC110 - once, at the end of the process
            (feeder := self._feeders.get(at.partition)) is not None
            and feeder.position < offsets.end
            and str(at) not in self.unfed
            for at, offsets in ends.items()
        ):
            await asyncio.sleep(_FLUSHED_S)

    async def run(self, replayed: Callable[[], bool]) -> None:
        """See `HistoryLink`."""
        try:
            await self._opened()
            while not replayed():  # noqa: ASYNC110 - a look at owners, who come first
                await asyncio.sleep(_REPLAYED_S)
            async with self._log() as log, asyncio.TaskGroup() as group:
                group.create_task(self._writer.run())
                group.create_task(self._watch(log))
                retention = Retention(self.database, self._settings.history.retention_ms, lambda: self._placed)
                group.create_task(retention.run())
                while True:
                    self._changed.clear()
                    self._place(group, log)
                    await self._changed.wait()
        except BaseExceptionGroup as error:
            raise first_error(error) from error
        finally:
            self._open = False
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await asyncio.shield(self.database.close())

    # --- beginning ---------------------------------------------------------------------------------------------------

    async def _opened(self) -> None:
        """Return when the database can be used; never, if it cannot."""
        while True:
            try:
                await self.database.open(self._settings.app.name)
            except HistoryUnavailable as error:
                await self._outage.wait(error)
            except HeadraceError as error:
                await self._refuse(error, self.database.shown)
            else:
                self._outage.over()
                self._open = True
                return

    @contextlib.asynccontextmanager
    async def _log(self) -> AsyncGenerator[Log]:
        """Our own way to the log; a broker that is away is waited for. Others say so."""
        back_off = BackOff(_BACK_OFF_S)
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    log = await stack.enter_async_context(self._open_log())
                except Transient:
                    await back_off.wait()
                else:
                    break
            yield log

    async def _refuse(self, error: HeadraceError, place: str) -> None:
        """Say what is wrong, and wait for the end."""
        self._tell(error, place)
        await asyncio.Event().wait()

    def _tell(self, error: HeadraceError, place: str) -> None:
        self.unfed.add(place)
        self._observer.history_refused(
            told_log.HistoryRefused(place=place, code=error.code, message=error.message, do=error.do)
        )

    # --- feeders -----------------------------------------------------------------------------------------------------

    def _place(self, group: asyncio.TaskGroup, log: Log) -> None:
        for partition in [number for number in self._tasks if number not in self._placed]:
            task = self._ending[partition] = self._tasks.pop(partition)
            task.cancel()
        for partition in sorted(self._placed - self._tasks.keys()):
            at = TopicPartition(self._topic, partition)
            before = self._ending.pop(partition, None)
            self._tasks[partition] = group.create_task(self._feed(log, at, before), name=f"history-{partition}")

    async def _feed(self, log: Log, at: TopicPartition, before: asyncio.Task[None] | None) -> None:
        """One partition, until it is placed elsewhere."""
        if before is not None:  # a partition has one reader at a time
            await asyncio.wait([before])
        loop = asyncio.get_running_loop()
        back_off = BackOff(_BACK_OFF_S)
        try:
            while True:
                feeder = self._feeders[at.partition] = Feeder(self._feeder_shared, log, at)
                began = loop.time()
                try:
                    await feeder.run()
                except BaseExceptionGroup as group:
                    error = first_error(group)
                except Exception as raised:  # noqa: BLE001 - a bug of ours stops the history of one partition, and no run
                    error = raised
                else:
                    return
                if loop.time() - began > _LIVED_S:
                    back_off.reset()
                await self._after(error, str(at), back_off)
                self.unfed.discard(str(at))
        finally:
            self._feeders.pop(at.partition, None)
            self.unfed.discard(str(at))

    async def _after(self, error: BaseException, place: str, back_off: BackOff) -> None:
        """Whether, and when, the partition is begun anew."""
        match error:
            case HistoryRefused():
                await self._refuse(error, place)
            case HistoryUnavailable():
                await self._outage.wait(error)
            case Overtaken() | OffsetOutOfRange() | Transient():
                await back_off.wait()
            case HeadraceError():
                self._tell(error, place)
                await back_off.wait()
            case Exception():
                self._tell(bug(error, _BUG), place)
                await back_off.wait()
            case _:
                raise error

    def _moved(self, _feeder: Feeder) -> None:
        self.moved.set()

    async def _watch(self, log: Log) -> None:
        """Where the log ends: a feeder that waits for the database does not hear of new records."""
        while True:
            await asyncio.sleep(_LOOK_S)
            feeders = {feeder.at: feeder for feeder in self._feeders.values()}
            with contextlib.suppress(HeadraceError):
                for at, offsets in (await log.offsets(list(feeders))).items():
                    feeders[at].ends_at(offsets.end, time_ns() // 1_000_000)
