"""Writes a run log by hand, so that tests know each record of it."""

from pathlib import Path
from typing import Self

import msgspec

from headrace.service.engine.checkpoint import dump
from headrace.service.engine.fold import fold, new_state
from headrace.service.names import Names
from headrace.service.settings import Settings
from headrace.service.topic_plan import planned, prepare
from headrace.topics.command import OnConflict, Start
from headrace.topics.event import EventMeta
from headrace.topics.identity import Coordinates, RunId, run_id
from headrace.topics.log import Log, LogRecord, NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.outcome import Outcome
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, RunRecord, decode, encode

LOG = Path(".headrace/headrace.sqlite")
SOURCE = "orders"


class RecordedPartition:
    """One partition of the run log, as one owner would write it."""

    def __init__(self, log: Log, partition: int) -> None:
        self._log = log
        self.at = TopicPartition(Names("headrace").runs, partition)
        self._seq = 0

    async def announce(self) -> None:
        """Take ownership: the token is 0, as this is the first record."""
        await self.append(
            Announce(app="headrace", instance="i", member="m", nonce="n", previous_token=-1, partitions=8)
        )

    async def start(self, offset: int, *, key: str | None = None, workflow: str = "fulfil", **options: object) -> RunId:
        """A start by the record at this offset of the source's partition 0."""
        identity = Coordinates(epoch=0, origin=SOURCE, partition=0, offset=offset, n="n", floor=0)
        event = EventMeta(f"0-{offset}", "kafka:orders", "order.placed", SOURCE, 0, offset)
        start = Start(
            namespace="default",
            workflow=workflow,
            version="1",
            input=msgspec.Raw(b'{"id":"A-1"}'),
            key=key,
            policy=OnConflict(str(options.get("policy", "allow"))),
            event=event,
        )
        await self.append(CommandRecord(id=identity, body=start))
        return run_id(self.at.partition, identity)

    async def outcome(self, body: Outcome, *, token: int = 0) -> None:
        """The next outcome of the owner; with another token it is a zombie's."""
        await self.append(OutcomeRecord(token=token, seq=self._seq, body=body))
        if token == 0:
            self._seq += 1

    async def checkpoint(self) -> None:
        """Write one as the owner would, and trim what lies before it."""
        state = new_state(topic=self.at.topic, partition=self.at.partition, partitions=8, client_retention_ms=1)
        end = (await self._log.offsets([self.at]))[self.at].end
        async with self._log.read(self.at, 0) as batches:
            async for batch in batches:
                for record in batch.records:
                    assert isinstance(record, LogRecord)
                    value = record.value or b""
                    fold(state, record.offset, record.timestamp_ms, len(value), decode(value))
                if state.next_offset == end:
                    break
        for chunk in dump(state):
            await self.outcome(chunk)
        await self._log.trim(self.at, state.next_offset)

    async def append(self, record: RunRecord) -> int:
        """Any record; its offset."""
        return (await self._log.append(self.at, [NewRecord(encode(record))])).base_offset


class Recording:
    """An embedded log in the working directory with all topics made. `async with` closes it."""

    async def __aenter__(self) -> Self:
        self.log = EmbeddedLog(LOG, owner=True)
        await self.log.__aenter__()
        wanted = await planned(self.log, Settings(), sources=[SOURCE], outputs=["orders.fulfilled"])
        await prepare(self.log, wanted, create=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.log.__aexit__(None, None, None)

    async def partition(self, number: int = 0) -> RecordedPartition:
        """An announced partition."""
        partition = RecordedPartition(self.log, number)
        await partition.announce()
        return partition
