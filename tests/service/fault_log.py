"""A `Log` with faults: everything goes to a real one, except where a test says what goes wrong."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum, auto
from types import TracebackType
from typing import Self

from headrace.topics.log import (
    Appended,
    AppendFailed,
    AppendRefused,
    Batch,
    Isolation,
    Log,
    LogUnavailable,
    NewRecord,
    Offsets,
    Position,
    TopicMissing,
    TopicPartition,
)
from headrace.topics.membership import Membership
from headrace.topics.membership_embedded import EmbeddedMembership
from headrace.topics.spec import TopicSpec


class Fault(Enum):
    """What happens to one append or publish."""

    LOST = auto()  # not done, reported as uncertain
    DONE = auto()  # done, reported as uncertain
    AWAY = auto()  # not done, and it is known


class FaultLog:
    """One process's way to a log that others may have open too. It is opened and closed by who opened the real one."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)  # by topic, for its next appends
        self.refuses: Callable[[str, NewRecord], bool] = lambda _topic, _record: False
        self.missing: set[str] = set()
        self.away = False  # the broker does not answer
        self.dead = False  # the process is: nothing of it reaches the log any more
        self.calls: list[tuple[TopicPartition, Sequence[NewRecord]]] = []  # every append and publish, in order
        self.commits: list[Mapping[TopicPartition, Position]] = []  # those that happened
        self._held: dict[str, asyncio.Event] = {}
        self.reading: list[TopicPartition] = []  # ever begun; a broker that goes away ends none
        self.waiting: set[str] = set()  # topics with a write that is done and not acknowledged

    @property
    def reachable(self) -> bool:
        return not self.away

    def hold(self, name: str) -> None:
        """Acknowledge nothing on this topic (or no commit of this group) until `release`."""
        self._held[name] = asyncio.Event()

    def release(self, name: str) -> None:
        self._held.pop(name).set()

    def release_all(self) -> None:
        for name in list(self._held):
            self.release(name)

    def called(self, topic: str) -> list[Sequence[NewRecord]]:
        """The batches that somebody wanted to write to the topic."""
        return [records for at, records in self.calls if at.topic == topic]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        return await self._write(at, records, self._log.append)

    async def publish(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        return await self._write(at, records, self._log.publish)

    async def _write(
        self,
        at: TopicPartition,
        records: Sequence[NewRecord],
        write: Callable[[TopicPartition, Sequence[NewRecord]], Awaitable[Appended]],
    ) -> Appended:
        self._check(at.topic)
        self.calls.append((at, records))
        await asyncio.sleep(0)  # no broker answers in the same turn of the loop
        fault = self.faults[at.topic].popleft() if self.faults[at.topic] else None
        if fault is Fault.LOST:
            raise AppendFailed(f"The batch to {at} was lost.")
        if fault is Fault.AWAY:
            raise LogUnavailable(f"{at} cannot be reached.")
        if any(self.refuses(at.topic, record) for record in records):
            raise AppendRefused(f"{at} does not take this.")
        appended = await write(at, records)
        await self._acknowledged(at.topic)
        if fault is Fault.DONE:
            raise AppendFailed(f"No answer from {at}.")
        return appended

    async def _acknowledged(self, name: str) -> None:
        held = self._held.get(name)
        if held is not None:
            self.waiting.add(name)
            await held.wait()
            self.waiting.discard(name)

    def _check(self, topic: str | None = None) -> None:
        if self.away or self.dead:
            raise LogUnavailable("The broker does not answer.")
        if topic in self.missing:
            raise TopicMissing(f"{topic} does not exist.")

    def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        self.reading.append(at)
        return self._log.read(at, start, isolation=isolation)

    async def offsets(self, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offsets]:
        self._check()
        return await self._log.offsets(at)

    async def trim(self, at: TopicPartition, before: int) -> None:
        self._check()
        await self._log.trim(at, before)

    async def committed(self, group: str, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Position]:
        self._check()
        return await self._log.committed(group, at)

    async def commit(self, group: str, positions: Mapping[TopicPartition, Position]) -> None:
        self._check()
        await self._log.commit(group, positions)
        self.commits.append(positions)
        await self._acknowledged(group)

    @asynccontextmanager
    async def join(
        self,
        group: str,
        *,
        runs: str,
        partitions: int,
        sources: Sequence[str],
        definitions: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Membership]:
        """Everything is ours, as far as this log shows it."""
        membership = EmbeddedMembership(partitions=partitions, sources=sources, count=self.partitions, member="test-1")
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(membership.run())
            try:
                yield membership
            finally:
                task.cancel()

    async def expel(self, group: str) -> Sequence[str]:
        self._check()
        return await self._log.expel(group)

    async def partitions(self, topic: str) -> int:
        self._check(topic)
        return await self._log.partitions(topic)

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        self._check()
        return await self._log.describe(topics)

    async def topics(self) -> Sequence[str]:
        self._check()
        return await self._log.topics()

    async def create(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        self._check()
        return await self._log.create(specs)

    async def nodes(self) -> int:
        return 1
