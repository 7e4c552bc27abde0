"""`Recorder`: everything that stands in an app's topics, read from outside while it lasts (a run log is trimmed).

For Kafka a plain aiokafka consumer without a group, for the embedded file the log's own reader.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError

from headrace.topics.errors import HeadraceError
from headrace.topics.log import LogRecord
from headrace.topics.log import TopicPartition as LogPartition
from headrace.topics.log_embedded import EmbeddedLog
from tests.chaos.let_go import let_go

At = tuple[str, int]
_QUIET_MS = 200
_TRIES_S = 60
_STUCK_S = 3.0  # without a record that is known to be there
_LOOK_MAX_S = 15.0


class Record(NamedTuple):
    """A record as read."""

    at: At
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def header(self, name: str) -> str:
        """The last header of the name, or nothing."""
        return next((value.decode() for found, value in reversed(self.headers) if found == name), "")


class Source(Protocol):
    """Where records come from. Errors of a broker that is away are KafkaError, OSError or HeadraceError."""

    async def partitions(self, topic: str) -> int: ...
    async def ends(self, at: Sequence[At]) -> dict[At, int]: ...
    async def begins(self, at: Sequence[At]) -> dict[At, int]: ...
    async def some(self, at: At, start: int, end: int) -> list[Record]: ...
    async def committed(self, group: str, at: Sequence[At]) -> dict[At, int]: ...
    async def close(self) -> None: ...


class KafkaSource:
    """By aiokafka. `servers` lead past all proxies."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._assigned: set[aiokafka.TopicPartition] = set()

    async def partitions(self, topic: str) -> int:
        consumer = await self._open()
        everything: Any = await consumer._client.fetch_all_metadata()  # what it keeps is of topics it was assigned
        return len(everything.partitions_for_topic(topic) or ())

    async def ends(self, at: Sequence[At]) -> dict[At, int]:
        consumer = await self._open()
        wanted = {aiokafka.TopicPartition(*each) for each in at}
        if not wanted <= self._assigned:
            self._assigned |= wanted
            consumer.assign(list(self._assigned))
        found = await consumer.end_offsets(list(wanted))
        return {(each.topic, each.partition): end for each, end in found.items()}

    async def begins(self, at: Sequence[At]) -> dict[At, int]:
        consumer = await self._open()
        found = await consumer.beginning_offsets([aiokafka.TopicPartition(*each) for each in at])
        return {(each.topic, each.partition): begin for each, begin in found.items()}

    async def some(self, at: At, start: int, end: int) -> list[Record]:
        consumer = await self._open()
        partition = aiokafka.TopicPartition(*at)
        begin = (await consumer.beginning_offsets([partition]))[partition]
        consumer.seek(partition, max(start, begin))
        found: list[Record] = []
        quiet_since = time.monotonic()
        while not found or found[-1].offset + 1 < end:
            if time.monotonic() > quiet_since + _STUCK_S:
                raise KafkaTimeoutError
            batches = await consumer.getmany(partition, timeout_ms=_QUIET_MS)
            read = batches.get(partition, [])
            found += [
                Record(at, each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in read
            ]
            quiet_since = time.monotonic() if read else quiet_since
            if not read and await consumer.position(partition) >= end:
                break
        return found

    async def committed(self, group: str, at: Sequence[At]) -> dict[At, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers, request_timeout_ms=5000)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(group, partitions=[aiokafka.TopicPartition(*a) for a in at])
        finally:
            await admin.close()
        return {(each.topic, each.partition): meta.offset for each, meta in found.items() if meta.offset >= 0}

    async def _open(self) -> aiokafka.AIOKafkaConsumer:
        if self._consumer is None:
            consumer = aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._servers,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                request_timeout_ms=8000,
                retry_backoff_ms=50,
                fetch_max_wait_ms=50,
                metadata_max_age_ms=5000,
            )
            try:
                await consumer.start()
            except BaseException:
                await let_go(consumer.stop())
                raise
            self._consumer = consumer
        return self._consumer

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._assigned.clear()
        if consumer is not None:
            await let_go(consumer.stop())


class EmbeddedSource:
    """A second process's look at the embedded file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: EmbeddedLog | None = None

    async def partitions(self, topic: str) -> int:
        return await (await self._open()).partitions(topic)

    async def ends(self, at: Sequence[At]) -> dict[At, int]:
        found = await (await self._open()).offsets([LogPartition(*each) for each in at])
        return {(each.topic, each.partition): offsets.end for each, offsets in found.items()}

    async def begins(self, at: Sequence[At]) -> dict[At, int]:
        found = await (await self._open()).offsets([LogPartition(*each) for each in at])
        return {(each.topic, each.partition): offsets.start for each, offsets in found.items()}

    async def some(self, at: At, start: int, end: int) -> list[Record]:
        log = await self._open()
        partition = LogPartition(*at)
        start = max(start, (await log.offsets([partition]))[partition].start)
        found: list[Record] = []
        if start >= end:
            return found
        async with log.read(partition, start) as batches:
            async for batch in batches:
                for each in batch.records:
                    assert isinstance(each, LogRecord), each
                    found.append(Record(at, each.offset, each.timestamp_ms, each.key, each.value, each.headers))
                if found[-1].offset + 1 >= end:
                    break
        return found

    async def committed(self, group: str, at: Sequence[At]) -> dict[At, int]:
        found = await (await self._open()).committed(group, [LogPartition(*each) for each in at])
        return {(each.topic, each.partition): position.offset for each, position in found.items()}

    async def _open(self) -> EmbeddedLog:
        if self._log is None:
            self._log = await EmbeddedLog(self._path, owner=False).__aenter__()
        return self._log

    async def close(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            await log.__aexit__(None, None, None)


class Recorder:
    """`refresh` reads on. `listener` gets the records of topics that are not kept (the run log's are many)."""

    def __init__(self, source: Source, kept: Sequence[str], told: str, listener: Callable[[Record], None]) -> None:
        self.source = source
        self._kept = kept
        self._told = told
        self._listener = listener
        self._records: dict[str, list[Record]] = defaultdict(list)
        self._next: dict[At, int] = {}
        self.missed = 0
        """Offsets of the run log that were trimmed before they were read: what is judged then has a hole."""
        self._lock = asyncio.Lock()
        self._look = 0

    def records(self, topic: str) -> list[Record]:
        """What was read of a kept topic, by partition in offset order."""
        return self._records[topic]

    def at(self, topic: str) -> list[At]:
        """The partitions of a topic that are known."""
        return [at for at in self._next if at[0] == topic]

    def told(self) -> dict[int, int]:
        """Up to where the run log was read, by partition."""
        return {at[1]: offset for at, offset in self._next.items() if at[0] == self._told}

    async def refresh(self) -> Self:
        """Read on to what are the ends now. Waits for a broker that is away, a minute."""
        async with self._lock, asyncio.timeout(_TRIES_S):
            while not await self._looked():
                await self.source.close()  # a client that lost its brokers may never find them again: the next is new
                await asyncio.sleep(0.1)
        return self

    async def _looked(self) -> bool:
        """Whether a look came to its end. One that does not, even cancelled, is left behind: what it finds later counts for nothing."""
        self._look += 1
        look = asyncio.get_running_loop().create_task(self._read_on(self._look))
        try:
            await asyncio.wait([look], timeout=_LOOK_MAX_S)
        finally:
            look.cancel()
        if not look.done() or look.cancelled():
            return False
        try:
            return look.result()
        except (KafkaError, OSError, HeadraceError):
            return False

    async def _read_on(self, look: int) -> bool:
        for topic in (*self._kept, self._told):
            if not self.at(topic):
                for number in range(await self.source.partitions(topic)):
                    self._next[topic, number] = 0
        ends = await self.source.ends(list(self._next)) if self._next else {}
        for at, end in ends.items():
            start = self._next[at]
            if start >= end:
                continue
            found = await self.source.some(at, start, end)
            if look != self._look:
                return False
            self._take(at, found)
        return True

    def _take(self, at: At, found: list[Record]) -> None:
        for record in found:
            if at[0] == self._told:
                self.missed += record.offset - self._next[at]
                self._listener(record)
            else:
                self._records[at[0]].append(record)
            self._next[at] = record.offset + 1

    async def close(self) -> None:
        """Let go."""
        await self.source.close()
