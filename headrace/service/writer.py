"""Group commit for one partition: whoever has records puts them here; one batch is out, the next one fills meanwhile. No lingering.

All appends of this process to a run-log partition go through its one writer: the owner's outcomes, and the commands of routers and outboxes.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from headrace.observability.label import ProduceResult
from headrace.observability.observer import Observer
from headrace.observability.told_log import Appended as AppendedEvent
from headrace.observability.told_log import Produced
from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.errors import HeadraceError
from headrace.topics.log import Appended, AppendFailed, Log, NewRecord, TopicPartition
from headrace.topics.wake import Wake

if TYPE_CHECKING:
    from headrace.service.log_clock import LogClock

_BATCH_RECORDS = 4_096


class Waiter(Protocol):
    """Told, in order, where its record went or why not. Called once per record, on the loop."""

    def __call__(self, offset: int, error: HeadraceError | None, /) -> None: ...


_Put = tuple[NewRecord, int, Waiter | None]
"""A record, its size, and who waits. A plain tuple: a named one costs a third of `put`."""


class Writer:
    """`put` never waits and keeps order; `run` is the task that appends. After a failure everything queued fails too, in order, and it goes on empty."""

    def __init__(self, log: Log, at: TopicPartition, *, batch_bytes: int, observer: Observer, clock: LogClock) -> None:
        self.at = at
        self._log = log
        self._batch_bytes = batch_bytes
        self._observer = observer
        self._clock = clock
        self._queue: list[_Put] = []
        self._wake = Wake()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False
        self.queued_bytes = 0

    def put(self, record: NewRecord, waiter: Waiter | None = None) -> None:
        """Queue one record."""
        value = record.value
        size = len(value) if value is not None and record.key is None and not record.headers else record.size
        if not self._queue:
            self._idle.clear()
            self._wake.set()
        self._queue.append((record, size, waiter))
        self.queued_bytes += size

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or out."""
        return self._idle.is_set()

    async def flushed(self) -> None:
        """Return when nothing is queued or out."""
        await self._idle.wait()

    def stop(self) -> None:
        """Let `run` return once everything is written."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Append until stopped. Errors go to the waiters."""
        while True:
            await self._wake.wait()
            while self._queue:
                batch = self._take()
                await self._append(batch)
            self._wake.clear()
            self._idle.set()
            if self._stopped:
                return

    def _take(self) -> list[_Put]:
        queue = self._queue
        if self.queued_bytes <= self._batch_bytes and len(queue) <= _BATCH_RECORDS:
            self._queue = []
            self.queued_bytes = 0
            return queue
        size = 0
        count = 0
        for _, record_size, _ in queue:
            if count and (size + record_size > self._batch_bytes or count >= _BATCH_RECORDS):
                break
            size += record_size
            count += 1
        self._queue = queue[count:]
        self.queued_bytes -= size
        return queue[:count]

    async def _append(self, batch: list[_Put]) -> None:
        called_at_ms = self._clock.local_ms()
        began = perf_counter()
        maybe(FaultPoint.APPEND_BEGINNING)
        try:
            appended = await self._log.append(self.at, [record for record, _, _ in batch])
        except HeadraceError as error:
            maybe(FaultPoint.APPEND_FAILED)
            self._tell(batch, None, ProduceResult.FAILED, began)
            self._fail(batch, error)
            return
        maybe(FaultPoint.APPEND_ACKNOWLEDGED)
        self._clock.seen(appended.timestamp_ms, called_at_ms, self._clock.local_ms())
        self._tell(batch, appended, ProduceResult.ACKNOWLEDGED, began)
        offset = appended.base_offset
        for _, _, waiter in batch:
            if waiter is not None:
                waiter(offset, None)
            offset += 1

    def _fail(self, batch: list[_Put], error: HeadraceError) -> None:
        """What came behind a failed batch may not overtake it: it fails as well."""
        behind, self._queue = self._queue, []
        self.queued_bytes = 0
        for _, _, waiter in batch:
            if waiter is not None:
                waiter(-1, error)
        if behind:
            stale = AppendFailed(f"An earlier batch to {self.at} failed.", why=error.message)
            for _, _, waiter in behind:
                if waiter is not None:
                    waiter(-1, stale)

    def _tell(self, batch: list[_Put], appended: Appended | None, result: ProduceResult, began: float) -> None:
        duration_ms = (perf_counter() - began) * 1000
        self._observer.produced(
            Produced(topic=self.at.topic, records=len(batch), duration_ms=duration_ms, result=result)
        )
        if appended is not None:
            self._observer.appended(
                AppendedEvent(
                    partition=self.at.partition,
                    records=len(batch),
                    duration_ms=duration_ms,
                )
            )
