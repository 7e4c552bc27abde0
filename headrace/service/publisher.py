"""The way out: records for users' topics, dead letters and audit, in order per partition, retried until they are there or refused for good.

One lane per partition, one batch out per lane. A lane that cannot send holds back nobody else. Called by the outbox and the router.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from headrace.observability import told_event, told_log, told_process
from headrace.observability.label import Dependency, ProduceResult
from headrace.observability.observer import Observer
from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.back_off import BackOff
from headrace.topics.errors import HeadraceError, Rejected
from headrace.topics.log import AppendFailed, Log, NewRecord, TopicMissing, TopicPartition
from headrace.topics.partition_hash import kafka_partition_of, partition_of
from headrace.topics.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH_RECORDS = 2_048
_BATCH_BYTES = 512 << 10
_TRIES_ALONE = 3  # of a record that is refused alone in its batch
_BACK_OFF_S = (0.1, 10.0)


class Gone(Protocol):
    """Told where a record went, or that it was refused for good. Called on the loop, in order per partition."""

    def __call__(self, at: TopicPartition, offset: int, refused: Rejected | None, /) -> None: ...


class _Item(NamedTuple):
    record: NewRecord
    gone: Gone
    wanted: Callable[[], bool]


class Publisher:
    """`put` never waits. `run` is the task group's entry; `pause` lets batches that are out come home and sends no more."""

    def __init__(self, log: Log, observer: Observer) -> None:
        self.log = log
        self.observer = observer
        self.paused = False
        self._topics: dict[str, _Topic] = {}
        self._group: asyncio.TaskGroup | None = None
        self._batches = 0  # that ever left
        self._out: set[int] = set()  # of these, not ended
        self._one_home = asyncio.Event()
        self._home = asyncio.Event()
        self._home.set()

    async def run(self) -> None:
        """Own the lanes until cancelled. What is put later stays here."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for topic in self._topics.values():
                topic.open(group)
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    def put(
        self,
        topic: str,
        partition: int | None,
        record: NewRecord,
        gone: Gone,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Queue a record. `partition=None`: by its key as Kafka's clients do. `wanted` is asked before each try: False drops it silently."""
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = _Topic(self, topic)
            if self._group is not None:
                known.open(self._group)
        known.put(partition, _Item(record, gone, wanted))

    async def publish(self, topic: str, partition: int | None, record: NewRecord) -> Rejected | None:
        """Put a record and wait until it is there, or refused for good."""
        done: asyncio.Future[Rejected | None] = asyncio.get_running_loop().create_future()

        def gone(_at: TopicPartition, _offset: int, refused: Rejected | None) -> None:
            if not done.done():
                done.set_result(refused)

        self.put(topic, partition, record, gone)
        return await done

    async def pause(self) -> None:
        """Send no more; return when nothing is out."""
        self.paused = True
        await self._home.wait()

    async def home(self) -> None:
        """Return when every batch that is out now has ended."""
        newest = self._batches
        while any(number <= newest for number in self._out):
            self._one_home.clear()
            await self._one_home.wait()

    def went_out(self) -> int:
        """A batch left: its number."""
        self._batches += 1
        self._out.add(self._batches)
        self._home.clear()
        return self._batches

    def came_home(self, number: int) -> None:
        """It ended."""
        self._out.discard(number)
        self._one_home.set()
        if not self._out:
            self._home.set()


class _Topic:
    """Finds out how many partitions there are, then hands records to lanes."""

    def __init__(self, publisher: Publisher, name: str) -> None:
        self._publisher = publisher
        self._name = name
        self._lanes: list[_Lane] = []
        self._early: deque[tuple[int | None, _Item]] = deque()
        self._count = 0
        self._group: asyncio.TaskGroup | None = None

    def open(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        group.create_task(self._look_up())

    def put(self, partition: int | None, item: _Item) -> None:
        if not self._lanes:
            self._early.append((partition, item))
            return
        self._lanes[self._choose(partition, item.record.key)].put(item)

    def _choose(self, partition: int | None, key: bytes | None) -> int:
        count = len(self._lanes)
        if partition is not None:
            return partition % count
        if key is not None:
            return kafka_partition_of(key, count)
        self._count += 1
        return partition_of(str(self._count).encode(), count)

    async def _look_up(self) -> None:
        outage = _Outage(self._publisher.observer, Dependency.TOPIC, self._name)
        while True:
            try:
                count = await self._publisher.log.partitions(self._name)
            except HeadraceError as error:
                await outage.wait(error)
            else:
                break
        outage.over()
        assert self._group is not None  # noqa: S101 - opened
        self._lanes = [_Lane(self._publisher, TopicPartition(self._name, index)) for index in range(count)]
        for lane in self._lanes:
            self._group.create_task(lane.run())
        while self._early:
            partition, item = self._early.popleft()
            self.put(partition, item)


class _Lane:
    def __init__(self, publisher: Publisher, at: TopicPartition) -> None:
        self._publisher = publisher
        self._at = at
        self._queue: deque[_Item] = deque()
        self._wake = Wake()

    def put(self, item: _Item) -> None:
        self._queue.append(item)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and not self._publisher.paused:
                await self._send(self._take())

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        queue = self._queue
        while queue and len(batch) < _BATCH_RECORDS:
            item = queue[0]
            size += item.record.size
            if batch and size > _BATCH_BYTES:
                break
            batch.append(queue.popleft())
        return batch

    async def _send(self, batch: list[_Item]) -> None:
        """Until all of it is there or refused. A refused batch is sent again record by record, for one may spoil the others."""
        outage = _Outage(self._publisher.observer, Dependency.BROKER, str(self._at))
        tries = 0
        while True:
            if self._publisher.paused:
                return  # what was not sent is still in the state, or its source record is not done
            batch = [item for item in batch if item.wanted()]
            if not batch:
                return
            try:
                base = await self._publish(batch)
            except TopicMissing as error:
                await outage.wait(error)
            except Rejected as refused:
                tries += 1
                if len(batch) > 1:
                    for item in batch:
                        await self._send([item])
                    return
                if tries >= _TRIES_ALONE:
                    maybe(FaultPoint.OUTPUT_REFUSED)
                    batch[0].gone(self._at, -1, refused)
                    return
            except HeadraceError as error:
                if isinstance(error, AppendFailed):
                    self._publisher.observer.output_resent(
                        told_event.OutputResent(topic=self._at.topic, records=len(batch))
                    )
                await outage.wait(error)
            else:
                outage.over()
                for index, item in enumerate(batch):
                    item.gone(self._at, base + index, None)
                return

    async def _publish(self, batch: list[_Item]) -> int:
        began = perf_counter()
        number = self._publisher.went_out()
        result = ProduceResult.FAILED
        maybe(FaultPoint.OUTPUT_SENDING)
        try:
            appended = await self._publisher.log.publish(self._at, [item.record for item in batch])
            maybe(FaultPoint.OUTPUT_SENT)
            result = ProduceResult.ACKNOWLEDGED
            return appended.base_offset
        except Rejected:
            result = ProduceResult.REFUSED
            raise
        finally:
            # told before the items are: what they propose in answer must find the batch still counted as out
            asyncio.get_running_loop().call_soon(self._publisher.came_home, number)
            self._publisher.observer.produced(
                told_log.Produced(
                    topic=self._at.topic,
                    records=len(batch),
                    duration_ms=(perf_counter() - began) * 1000,
                    result=result,
                )
            )


class _Outage:
    """Back-off, and one report for its beginning and its end."""

    def __init__(self, observer: Observer, dependency: Dependency, name: str) -> None:
        self._observer = observer
        self._dependency = dependency
        self._name = name
        self._back_off = BackOff(_BACK_OFF_S)
        self._began = 0.0

    async def wait(self, error: HeadraceError) -> None:
        if not self._back_off.failures:
            self._began = perf_counter()
            self._observer.outage_began(
                told_process.OutageBegan(dependency=self._dependency, name=self._name, message=error.message)
            )
        await self._back_off.wait()

    def over(self) -> None:
        if self._back_off.failures:
            self._back_off.reset()
            self._observer.outage_ended(
                told_process.OutageEnded(
                    dependency=self._dependency,
                    name=self._name,
                    duration_ms=(perf_counter() - self._began) * 1000,
                )
            )
