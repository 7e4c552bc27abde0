"""`KafkaSource`: what stands in the topics of real brokers, uncommitted records too, in whatever codec."""

import time
from collections.abc import Sequence
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from tests.chaos.kafka_wire import KafkaWire, by_topic, check
from tests.chaos.recorder import At, Record

_REQUEST_S = 5.0
_PATIENCE_S = 10.0
_STUCK_S = 3.0  # without a record that is known to be there
_LATEST, _EARLIEST = -1, -2
_UNCOMMITTED = 0
_WAIT_MS = 100
_FETCH_BYTES = 4 * 1024 * 1024


class KafkaSource:
    """`servers` lead past all proxies. Errors that may pass are waited out for `patience_s`."""

    def __init__(self, servers: str, *, request_s: float = _REQUEST_S, patience_s: float = _PATIENCE_S) -> None:
        self.wire = KafkaWire(servers, request_s=request_s, patience_s=patience_s)

    async def partitions(self, topic: str) -> int:
        async def look() -> int:
            return len((await self.wire.metadata([topic])).get(topic, ()))

        return await self.wire.steady(look)

    async def ends(self, at: Sequence[At]) -> dict[At, int]:
        return await self.wire.steady(lambda: self._offsets(at, _LATEST))

    async def begins(self, at: Sequence[At]) -> dict[At, int]:
        return await self.wire.steady(lambda: self._offsets(at, _EARLIEST))

    async def some(self, at: At, start: int, end: int) -> list[Record]:
        return await self.wire.steady(lambda: self._read(at, start, end))

    async def committed(self, group: str, at: Sequence[At]) -> dict[At, int]:
        async def look() -> dict[At, int]:
            request = OffsetFetchRequest(group, by_topic(at, lambda each: each[1]))
            answer: Any = await self.wire.ask(await self.wire.coordinator(group), request)
            check(answer.error_code)
            found: dict[At, int] = {}
            for topic, partitions in answer.topics:
                for number, offset, _, error in partitions:
                    check(error)
                    found[topic, number] = offset
            return {each: offset for each, offset in found.items() if offset >= 0}

        return await self.wire.steady(look)

    async def _offsets(self, at: Sequence[At], which: int) -> dict[At, int]:
        found: dict[At, int] = {}
        for node, led in (await self.wire.led(at)).items():
            request = OffsetRequest(-1, _UNCOMMITTED, by_topic(led, lambda each: (each[1], which)))
            answer: Any = await self.wire.ask(node, request)
            for topic, partitions in answer.topics:
                for number, error, _, offset in partitions:
                    check(error)
                    found[topic, number] = offset
        return found

    async def _read(self, at: At, start: int, end: int) -> list[Record]:
        """From `start`, or where the partition begins if that was trimmed, to `end` at least."""
        found: list[Record] = []
        position = start
        moved_at = time.monotonic()
        while position < end:
            try:
                read, moved = await self._fetch(at, position)
            except kafka_errors.OffsetOutOfRangeError:
                begin = (await self._offsets([at], _EARLIEST))[at]
                if begin <= position:  # a leader that is behind
                    raise kafka_errors.StaleMetadata from None
                read, moved = [], begin
            if moved > position:
                moved_at = time.monotonic()
            elif time.monotonic() > moved_at + _STUCK_S:
                raise kafka_errors.StaleMetadata
            found += read
            position = moved
        return found

    async def _fetch(self, at: At, position: int) -> tuple[list[Record], int]:
        """What one request brings, and the offset after it."""
        (node,) = await self.wire.led([at])
        topics = [(at[0], [(at[1], position, _FETCH_BYTES)])]
        answer: Any = await self.wire.ask(node, FetchRequest(_WAIT_MS, 1, _FETCH_BYTES, _UNCOMMITTED, topics))
        ((_, ((_, error, *_, data),)),) = answer.topics
        check(error)
        found: list[Record] = []
        batches = MemoryRecords(data or b"")
        while (batch := batches.next_batch()) is not None:
            if not batch.validate_crc():
                raise kafka_errors.CorruptRecordException
            if not batch.is_control_batch:
                found += [
                    Record(at, each.offset, each.timestamp or 0, each.key, each.value, _headers(each.headers))
                    for each in batch
                    if each.offset >= position
                ]
            position = max(position, batch.next_offset)
        return found, position

    async def close(self) -> None:
        await self.wire.close()


def _headers(headers: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple(headers)
