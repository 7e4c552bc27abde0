"""Where logs come from: one broker of a kind, of which a test may open several `Log` objects."""

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import anyio

from headrace.topics.log import Batch, Log, LogRecord, TopicPartition, Unreadable
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.log_kafka import KafkaClientSettings, KafkaLog
from tests.simulation.broker import Broker
from tests.simulation.log import SimLog

PATIENCE_S = 60.0  # how long a test waits for what must happen; none asserts how fast it did


class Station(Protocol):
    kind: str

    def open(self) -> Log:
        """A log, not started yet."""
        ...

    def released(self) -> None:
        """The log that was opened first is closed: the next one may own what it owned."""
        ...

    def writer(self, topic: str) -> list[str]:
        """The command of a process that appends to partition 0 of the topic until it is killed."""
        ...


class EmbeddedStation:
    kind = "embedded"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_owner = False

    def open(self) -> Log:
        """The first one owns the file, as in life."""
        owner, self._has_owner = not self._has_owner, True
        return EmbeddedLog(self._path, owner=owner)

    def released(self) -> None:
        """The owner is gone: the next one opened owns the file."""
        self._has_owner = False

    def writer(self, topic: str) -> list[str]:
        return [sys.executable, "-m", "tests.contract.writer_process", self.kind, str(self._path), topic]


class KafkaStation:
    kind = "kafka"

    def __init__(self, servers: str) -> None:
        self._servers = servers

    def open(self) -> Log:
        return KafkaLog(KafkaClientSettings(bootstrap_servers=(self._servers,)))

    def released(self) -> None:
        """Nothing to do: Kafka has no owner."""

    def writer(self, topic: str) -> list[str]:
        return [sys.executable, "-m", "tests.contract.writer_process", self.kind, self._servers, topic]


class SimStation:
    """The broker of the simulation, on a quiet day, in this process."""

    kind = "simulated"

    def __init__(self) -> None:
        self._broker = Broker(Random(0))

    def open(self) -> Log:
        return SimLog(self._broker)

    def released(self) -> None:
        """Nothing to do: like Kafka, it has no owner."""

    def writer(self, topic: str) -> list[str]:
        raise NotImplementedError("it lives in one process, which the simulation itself kills")


async def take(batches: AsyncIterator[Batch], count: int) -> list[LogRecord | Unreadable]:
    """The next `count` records or more, as batches go."""
    found: list[LogRecord | Unreadable] = []
    with anyio.fail_after(PATIENCE_S):
        while len(found) < count:
            batch = await anext(batches)
            assert batch.records
            assert batch.end_offset > batch.records[-1].offset
            found += batch.records
    return found


async def read(log: Log, at: TopicPartition, start: int, count: int) -> list[LogRecord]:
    """`count` records or more from `start` on, all of them readable."""
    async with log.read(at, start) as batches:
        found = await take(batches, count)
    return readable(found)


def readable(found: Sequence[LogRecord | Unreadable]) -> list[LogRecord]:
    assert all(isinstance(record, LogRecord) for record in found)
    return [record for record in found if isinstance(record, LogRecord)]


def values(found: Sequence[LogRecord | Unreadable]) -> list[bytes | None]:
    return [record.value for record in readable(found)]
