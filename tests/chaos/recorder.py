"""`Recorder`: everything that stands in an app's topics, read from outside while it lasts (a run log is trimmed).

For Kafka see `kafka_source.py`; for the embedded file the log's own reader.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from aiokafka.errors import KafkaError

from headrace.topics.errors import HeadraceError
from headrace.topics.log import LogRecord, Offsets
from headrace.topics.log import TopicPartition as LogPartition
from headrace.topics.log_embedded import EmbeddedLog

At = tuple[str, int]
_TRIES_S = 60
_LOOK_MAX_S = 30.0


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


class EmbeddedSource:
    """A second process's look at the embedded file. Whoever asks takes turns: nobody closes it under another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: EmbeddedLog | None = None
        self._turn = asyncio.Lock()

    async def partitions(self, topic: str) -> int:
        async with self._opened() as log:
            return await log.partitions(topic)

    async def ends(self, at: Sequence[At]) -> dict[At, int]:
        return {each: offsets.end for each, offsets in (await self._offsets(at)).items()}

    async def begins(self, at: Sequence[At]) -> dict[At, int]:
        return {each: offsets.start for each, offsets in (await self._offsets(at)).items()}

    async def some(self, at: At, start: int, end: int) -> list[Record]:
        start = max(start, (await self.begins([at]))[at])
        found: list[Record] = []
        if start >= end:
            return found
        async with self._opened() as log, log.read(LogPartition(*at), start) as batches:
            async for batch in batches:
                for each in batch.records:
                    assert isinstance(each, LogRecord), each
                    found.append(Record(at, each.offset, each.timestamp_ms, each.key, each.value, each.headers))
                if found[-1].offset + 1 >= end:
                    break
        return found

    async def committed(self, group: str, at: Sequence[At]) -> dict[At, int]:
        async with self._opened() as log:
            found = await log.committed(group, [LogPartition(*each) for each in at])
        return {(each.topic, each.partition): position.offset for each, position in found.items()}

    async def _offsets(self, at: Sequence[At]) -> dict[At, Offsets]:
        async with self._opened() as log:
            found = await log.offsets([LogPartition(*each) for each in at])
        return {(each.topic, each.partition): offsets for each, offsets in found.items()}

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[EmbeddedLog]:
        async with self._turn:
            if self._log is None:
                self._log = await EmbeddedLog(self._path, owner=False).__aenter__()
            yield self._log

    async def close(self) -> None:
        async with self._turn:
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
                await self.source.close()  # the next look begins anew
                await asyncio.sleep(0.1)
        return self

    async def _looked(self) -> bool:
        """Whether a look came to its end."""
        try:
            async with asyncio.timeout(_LOOK_MAX_S):
                await self._read_on()
        except (KafkaError, OSError, HeadraceError):
            return False
        return True

    async def _read_on(self) -> None:
        for topic in (*self._kept, self._told):
            if not self.at(topic):
                for number in range(await self.source.partitions(topic)):
                    self._next[topic, number] = 0
        ends = await self.source.ends(list(self._next)) if self._next else {}
        for at, end in ends.items():
            start = self._next[at]
            if start < end:
                self._take(at, await self.source.some(at, start, end))

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
