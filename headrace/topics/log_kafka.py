# pyright: reportMissingTypeStubs=false
"""`KafkaLog`: the `Log` on a Kafka cluster.

It ties together one client (`client_kafka.py`), two producers (`producer_kafka.py`: idempotent for `append`, plain for
`publish`), two fetchers (`fetcher_kafka.py`: one per isolation) and the admin requests (`admin_kafka.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import aiokafka
import msgspec
from aiokafka.errors import KafkaError
from aiokafka.record import default_records

from headrace.topics.admin_kafka import Admin
from headrace.topics.client_kafka import KafkaClient, KafkaClientSettings, Lane
from headrace.topics.codec_kafka import codecs_are_bounded
from headrace.topics.errors import Fatal
from headrace.topics.fetcher_kafka import Fetcher
from headrace.topics.log import (
    Appended,
    AppendFailed,
    Batch,
    Isolation,
    LogUnavailable,
    NewRecord,
    Offsets,
    Position,
    TopicPartition,
    partition_missing,
)
from headrace.topics.membership import Membership
from headrace.topics.membership_kafka import Group, KafkaMembership
from headrace.topics.producer_kafka import Producer
from headrace.topics.spec import TopicSpec
from headrace.topics.stamps import Stamps

_FLUSH_S = 5.0  # how long a stop waits for outstanding appends


class ClientFacts(msgspec.Struct, frozen=True):
    """What `headrace doctor` says about the Kafka client."""

    aiokafka_version: str
    compiled: bool
    """The C parser is there: without it records cost a hundred times as much."""
    bounded: tuple[str, ...]
    """Codecs whose decoders were seen to stop at a limit; all four of Kafka, or something is wrong."""


def client_facts() -> ClientFacts:
    """Look at the client library and try the decoders on a small bomb."""
    compiled = default_records.DefaultRecordBatch.__module__.startswith("aiokafka.record._crecords")
    return ClientFacts(aiokafka.__version__, compiled, codecs_are_bounded())


class KafkaLog:
    """The `Log` of one cluster. `reachable` is for health: False while brokers do not answer."""

    def __init__(self, settings: KafkaClientSettings) -> None:
        self._settings = settings
        self._parts: _Parts | None = None
        self._appending: set[TopicPartition] = set()
        self._tasks: asyncio.Task[None] | None = None

    @property
    def reachable(self) -> bool:
        """What the last exchange with a broker said."""
        return self._parts is not None and self._parts.client.reachable

    @property
    def _live(self) -> _Parts:
        if self._parts is None:
            raise RuntimeError("the Kafka log is not open")
        return self._parts

    async def __aenter__(self) -> Self:
        """Connect. Raises `LogUnavailable` within 10 s, `SettingsError`, and `Fatal` for a client library without its C
        parser.
        """
        facts = client_facts()
        if not facts.compiled or len(facts.bounded) < 4:
            raise Fatal(
                f"The Kafka client library cannot be used: {facts}.",
                code="HR5008",
                why="Its compiled parser is missing, or a decoder does not stop at its limit.",
                do="Install the aiokafka and cramjam wheels for this platform.",
            )
        client = KafkaClient(self._settings)
        await client.start()
        parts = self._parts = _Parts(client)
        # A task that outlives this call needs an owner: __aexit__, which ends it and waits.
        self._tasks = asyncio.get_running_loop().create_task(parts.run(), name="headrace-kafka-log")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for outstanding appends, a little; then close."""
        parts, tasks = self._parts, self._tasks
        self._parts = self._tasks = None
        if parts is None or tasks is None:
            return
        try:
            await parts.log_producer.drain(_FLUSH_S)
            await parts.plain_producer.drain(_FLUSH_S)
        finally:
            tasks.cancel()
            await asyncio.wait([tasks])
            parts.fail(LogUnavailable("The Kafka log was closed."), AppendFailed("The Kafka log was closed."))
            await parts.client.stop()

    # --- records ------------------------------------------------------------------------------------------------------

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        if at in self._appending:
            raise RuntimeError(f"another append to {at} is outstanding")
        self._appending.add(at)
        try:
            return await self._live.log_producer.append(at, records)
        finally:
            self._appending.discard(at)

    async def publish(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        return await self._live.plain_producer.append(at, records)

    @asynccontextmanager
    async def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        live = self._live
        partitions = await live.client.follow(at.topic)
        if not 0 <= at.partition < partitions:
            raise partition_missing(at, partitions)
        fetcher = live.fetchers[isolation]
        reader = fetcher.add(at, start)
        try:
            yield reader
        finally:
            fetcher.remove(reader)

    async def offsets(self, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offsets]:
        return await self._live.admin.offsets(at)

    async def trim(self, at: TopicPartition, before: int) -> None:
        await self._live.admin.trim(at, before)

    async def committed(self, group: str, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Position]:
        return await self._live.admin.committed(group, at)

    async def commit(self, group: str, positions: Mapping[TopicPartition, Position]) -> None:
        await self._live.admin.commit(group, positions)

    # --- who owns what ------------------------------------------------------------------------------------------------

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
        place = Group(self._settings, group)
        membership = KafkaMembership(
            place,
            runs=runs,
            partitions=partitions,
            sources=sources,
            count=self.partitions,
            definitions=definitions,
        )
        # A task that outlives this call needs an owner: the end of the `async with`, which ends it and waits.
        task = asyncio.get_running_loop().create_task(membership.run(), name="headrace-membership")
        try:
            yield membership
        finally:
            try:
                await membership.leave()
            finally:
                task.cancel()
                await asyncio.wait([task])
                await place.stop()

    async def expel(self, group: str) -> Sequence[str]:
        place = Group(self._settings, group)
        try:
            return await place.expel()
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"The group {group} could not be told of deaths: {error!r}.") from error
        finally:
            await place.stop()

    # --- topics -------------------------------------------------------------------------------------------------------

    async def partitions(self, topic: str) -> int:
        return await self._live.client.follow(topic)

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        return await self._live.admin.describe(topics)

    async def topics(self) -> Sequence[str]:
        return await self._live.admin.topics()

    async def create(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        return await self._live.admin.create(specs)

    async def nodes(self) -> int:
        return await self._live.admin.nodes()


class _Parts:
    """What an open log is made of."""

    def __init__(self, client: KafkaClient) -> None:
        self.client = client
        self.admin = Admin(client)
        limits = self.admin.message_bytes_max
        self.fetchers: dict[Isolation, Fetcher] = {
            "all": Fetcher(client, "all", self.admin.offsets),
            "committed": Fetcher(client, "committed", self.admin.offsets),
        }
        stamps = Stamps()
        self.log_producer = Producer(
            client,
            Lane.APPEND,
            idempotent=True,
            message_bytes_max=limits,
            stamps=stamps,
            appended=self.fetchers["all"].appended,
        )
        self.plain_producer = Producer(client, Lane.PUBLISH, idempotent=False, message_bytes_max=limits, stamps=stamps)

    async def run(self) -> None:
        """The tasks. They end by cancellation; a failure of one is a bug, which readers and appenders get to see."""
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self.log_producer, self.plain_producer, *self.fetchers.values()):
                    group.create_task(part.run())
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody may wait for ever
            failure = Fatal(f"The Kafka log failed: {error!r}.", code="HR9000")
            failure.__cause__ = error
            self.fail(failure, failure)

    def fail(self, for_readers: Exception, for_writers: Exception) -> None:
        """Tell everybody who waits."""
        self.log_producer.fail_all(for_writers)
        self.plain_producer.fail_all(for_writers)
        for fetcher in self.fetchers.values():
            fetcher.fail_all(for_readers)
