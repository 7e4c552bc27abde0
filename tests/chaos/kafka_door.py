"""`KafkaDoor`: an idempotent producer, one record at a time, that stands still while its broker is away."""

import asyncio
import time
from collections import defaultdict
from typing import Any

from aiokafka.errors import DuplicateSequenceNumber, KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tests.chaos.kafka_wire import KafkaWire, check

_REQUEST_S = 5.0
_PATIENCE_S = 20.0  # below the load's own
_ALL = -1
_BYTES = 1024 * 1024
_MAGIC, _PLAIN = 2, 0


class _Producer:
    """An id that the brokers gave, and the next sequence number by partition."""

    def __init__(self, number: int, epoch: int) -> None:
        self.number = number
        self.epoch = epoch
        self.next: dict[tuple[str, int], int] = defaultdict(int)


class KafkaDoor:
    """A record is sent again, with its number, until an answer says that it is in; patience over, the next has a new producer's."""

    def __init__(self, servers: str, *, request_s: float = _REQUEST_S, patience_s: float = _PATIENCE_S) -> None:
        self.wire = KafkaWire(servers, request_s=request_s, patience_s=patience_s)
        self._timeout_ms = round(request_s * 800)  # the broker gives up first, and says so
        self._producer: _Producer | None = None
        self._turn = asyncio.Lock()

    async def put(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        async with self._turn:  # numbers go in order
            try:
                producer = self._producer = self._producer or await self.wire.steady(self._named)
                batch = _batch(producer, (topic, partition), key, value, headers)
                await self.wire.steady(lambda: self._send((topic, partition), batch))
            except BaseException:
                self._producer = None  # whether this number is taken is not known
                raise
            producer.next[topic, partition] += 1

    async def _named(self) -> _Producer:
        answer: Any = await self.wire.ask_any(InitProducerIdRequest(None, self._timeout_ms))  # pyright: ignore[reportArgumentType] - none: not transactional
        check(answer.error_code)
        return _Producer(answer.producer_id, answer.producer_epoch)

    async def _send(self, at: tuple[str, int], batch: bytes) -> None:
        (node,) = await self.wire.led([at])
        request = ProduceRequest(None, _ALL, self._timeout_ms, [(at[0], [(at[1], batch)])])
        answer: Any = await self.wire.ask(node, request)
        ((_, ((_, error, *_),)),) = answer.topics
        if error != DuplicateSequenceNumber.errno:  # else it was in
            check(error)

    async def close(self) -> None:
        await self.wire.close()


def _batch(
    producer: _Producer, at: tuple[str, int], key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...]
) -> bytes:
    builder = DefaultRecordBatchBuilder(_MAGIC, _PLAIN, 0, producer.number, producer.epoch, producer.next[at], _BYTES)
    if builder.append(0, round(time.time() * 1000), key, value, list(headers)) is None:
        raise KafkaError("the record is too large")
    return bytes(builder.build())
