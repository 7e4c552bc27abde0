# pyright: reportMissingTypeStubs=false
"""Appending to Kafka: one batch outstanding per partition, all partitions of a broker in one request, a deadline.

Written on produce requests because aiokafka's producer uses up a sequence number for a refused batch (and then fails
that partition for ever), retries without end, and lets metadata requests make topics. Here a sequence number counts
only
when its batch is in, and after an uncertain end the producer id is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from headrace.topics import error_kafka
from headrace.topics.client_kafka import LOOK_AT_BROKERS, KafkaClient, Lane
from headrace.topics.codec_kafka import packed
from headrace.topics.deadlines import Deadlines
from headrace.topics.log import (
    Appended,
    AppendFailed,
    AppendForbidden,
    AppendRefused,
    LogUnavailable,
    NewRecord,
    TopicMissing,
    TopicPartition,
    partition_missing,
)
from headrace.topics.record_size import BATCH_FRAMING_BYTES, checked_sizes
from headrace.topics.stamps import Stamps

_BATCH_BYTES_MAX = 4 * 1024 * 1024  # uncompressed, where a topic allows that much
_REQUEST_BYTES_MAX = 8 * 1024 * 1024  # of one produce request, below the brokers' socket.request.max.bytes
_IN_FLIGHT = 2  # produce requests per broker: one is under way while the next is made
_MISSING_S = 3.0  # a broker that starts may not know a topic yet
_ACKS_ALL = -1
_REPLICATION_TIMEOUT_MS = 10_000  # how long a broker waits for its replicas; below the request timeout
_LARGEST_INT = 2**31 - 1


def _nobody(_at: TopicPartition, _appended: Appended, _records: Sequence[NewRecord]) -> None:
    pass


class _Identity:
    """A producer id with its sequence numbers. Without idempotence there is one of -1."""

    __slots__ = ("epoch", "next_sequence", "producer_id")

    def __init__(self, producer_id: int, epoch: int) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.next_sequence: dict[TopicPartition, int] = {}


class _Outgoing:
    """A batch on its way."""

    __slots__ = (
        "at",
        "data",
        "done",
        "identity",
        "missing_since",
        "records",
        "sent",
        "sequence",
        "size",
        "timestamp_ms",
        "waiter",
    )

    def __init__(
        self,
        at: TopicPartition,
        records: Sequence[NewRecord],
        size: int,
        timestamp_ms: int,
        done: asyncio.Future[Appended],
        waiter: asyncio.Future[Appended],
    ) -> None:
        self.at = at
        self.records = records
        self.size = size
        self.done = done  # it has ended; those behind it wait for this
        self.waiter = waiter  # the caller's, who may go
        self.timestamp_ms = timestamp_ms
        self.identity: _Identity | None = None
        self.sequence = -1
        self.data = b""
        self.sent = False  # a request with it went out, and no answer said that it was not appended
        self.missing_since: float | None = None


class Producer:
    """Appends through one lane. `run` is its task."""

    def __init__(
        self,
        client: KafkaClient,
        lane: Lane,
        *,
        idempotent: bool,
        message_bytes_max: Callable[[str], Awaitable[int]],
        stamps: Stamps,
        appended: Callable[[TopicPartition, Appended, Sequence[NewRecord]], None] = _nobody,
    ) -> None:
        """`message_bytes_max` tells a topic's `max.message.bytes`, or raises `TopicMissing`, `LogUnavailable`.

        `appended` is told of each batch that all in-sync replicas have, before whoever waits for it.
        """
        self._client = client
        self._lane = lane
        self._idempotent = idempotent
        self._message_bytes_max = message_bytes_max
        self._stamps = stamps
        self._tell_appended = appended
        self._limits: dict[str, int] = {}
        self._looking = asyncio.Lock()  # first calls for a topic keep their order
        self._identity: _Identity | None = None
        self._identifying = asyncio.Lock()
        self._queues: dict[int, dict[TopicPartition, _Outgoing]] = {}  # by broker
        self._wakes: dict[int, asyncio.Event] = {}
        self._new_node = asyncio.Event()
        self._outstanding: dict[TopicPartition, asyncio.Future[Appended]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._ended: Exception | None = None  # why nothing is sent any more
        self._loop = asyncio.get_running_loop()
        self._pending = Deadlines(self._loop, client.settings.append_timeout_ms / 1000, self._expire)

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        """Append in as few batches as there can be, one after the other. One call per partition at a time."""
        if self._ended is not None:
            raise self._ended
        limit = self._limits.get(at.topic) or await self._limit(at.topic)
        partitions = self._client.partitions(at.topic)
        if partitions is not None and not 0 <= at.partition < partitions:
            raise partition_missing(at, partitions)
        sizes = checked_sizes(at, records, limit)
        room = max(min(_BATCH_BYTES_MAX, limit - BATCH_FRAMING_BYTES), *sizes)
        if (total := sum(sizes)) <= room:
            return await self._send(at, records, total)
        first: Appended | None = None
        for begin, end, size in _cuts(sizes, room):
            try:
                appended = await self._send(at, records[begin:end], size)
            except (AppendRefused, LogUnavailable) as error:
                if first is None:
                    raise
                self._renew()
                raise AppendFailed(
                    f"Only a first part of the records for {at} was appended: {error.message}"
                ) from error
            first = first or appended
        if first is None:
            raise ValueError("a batch needs at least one record")
        return first

    async def _limit(self, topic: str) -> int:
        async with self._looking:
            if topic not in self._limits:
                await self._client.follow(topic)
                self._limits[topic] = await self._message_bytes_max(topic)
            return self._limits[topic]

    async def _send(self, at: TopicPartition, records: Sequence[NewRecord], size: int) -> Appended:
        done: asyncio.Future[Appended] = self._loop.create_future()
        before = self._outstanding.get(at)
        self._outstanding[at] = done
        if before is not None:  # another call's, or one whose caller was cancelled
            try:
                await asyncio.wait([before])
            except asyncio.CancelledError:
                before.add_done_callback(lambda _: self._drop(at, done))  # those behind us wait for us
                raise
        if done.done():  # failed with all the others
            return done.result()
        waiter: asyncio.Future[Appended] = self._loop.create_future()
        batch = _Outgoing(at, records, size, self._stamps.now_ms(), done, waiter)
        self._pending.add(batch)
        self._enqueue(batch)
        return await waiter

    def _drop(self, at: TopicPartition, done: asyncio.Future[Appended]) -> None:
        if self._outstanding.get(at) is done:
            del self._outstanding[at]
        done.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing is outstanding, for so long at most."""
        if waiting := [done for done in self._outstanding.values() if not done.done()]:
            await asyncio.wait(waiting, timeout=timeout_s)

    def fail_all(self, error: Exception) -> None:
        """Nothing more will be sent: tell the callers, and who calls from now on."""
        self._ended = error
        for batch in self._pending:
            self._settle(batch, error)
        for done in self._outstanding.values():  # of those that wait behind another call
            if not done.done():
                done.set_exception(error)
                done.exception()  # whoever waits looks at the future, not at this

    # --- the way of a batch -------------------------------------------------------------------------------------------

    def _enqueue(self, batch: _Outgoing) -> None:
        if batch.done.done():
            return
        node = self._client.leader(batch.at)
        if node is None:
            self._client.refresh_soon()
            self._again(batch)
            return
        if node not in self._queues:
            self._queues[node] = {}
            self._wakes[node] = asyncio.Event()
            self._new_node.set()
        self._queues[node][batch.at] = batch
        self._wakes[node].set()

    def _again(self, batch: _Outgoing) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            self._enqueue(batch)

        handle = self._loop.call_later(self._client.backoff_s, fire)
        self._timers.add(handle)

    def _settle(self, batch: _Outgoing, result: Appended | Exception) -> None:
        if self._outstanding.get(batch.at) is batch.done:
            del self._outstanding[batch.at]
        self._pending.drop(batch)
        if batch.done.done():
            return
        if isinstance(result, Exception):
            batch.done.set_exception(result)
            batch.done.exception()  # retrieved: the waiter is who must look
            if not batch.waiter.done():
                batch.waiter.set_exception(result)
                batch.waiter.exception()  # its caller may be cancelled before it looks
        else:
            batch.done.set_result(result)
            if not batch.waiter.done():
                batch.waiter.set_result(result)

    def _expire(self, batch: _Outgoing) -> None:
        seconds = self._client.settings.append_timeout_ms / 1000
        if batch.done.done():
            return
        for queue in self._queues.values():
            if queue.get(batch.at) is batch:
                del queue[batch.at]
        if batch.sent:
            self._fail(batch, f"No answer for {seconds:g} s.")
        else:
            message = f"No broker took an append to {batch.at} for {seconds:g} s."
            self._settle(batch, LogUnavailable(message, do=LOOK_AT_BROKERS))

    def _fail(self, batch: _Outgoing, what: str) -> None:
        """Uncertain: the batch may be in. Its sequence numbers are burnt, so the next batch has another producer id."""
        if batch.identity is self._identity:
            self._renew()
        self._settle(
            batch,
            AppendFailed(
                f"An append to {batch.at} failed: {what}",
                why="It may have happened or not.",
                do="The service reads the log again and goes on from there.",
            ),
        )

    def _renew(self) -> None:
        self._identity = None

    # --- requests -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is queued. Ends by cancellation."""
        started: set[int] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._new_node.clear()
                    for node in self._queues.keys() - started:
                        started.add(node)
                        for _ in range(_IN_FLIGHT):
                            group.create_task(self._serve(node))
                    await self._new_node.wait()
        finally:
            for timer in self._timers:
                timer.cancel()
            self._pending.stop()

    async def _serve(self, node: int) -> None:
        queue, wake = self._queues[node], self._wakes[node]
        while True:
            while not queue:
                wake.clear()
                await wake.wait()
            batches: list[_Outgoing] = []
            size = 0
            while queue and (not batches or size < _REQUEST_BYTES_MAX):
                at = next(iter(queue))
                batch = queue.pop(at)
                if not batch.done.done():
                    batches.append(batch)
                    size += batch.size
            if batches:
                await self._deliver(node, batches)

    async def _deliver(self, node: int, batches: list[_Outgoing]) -> None:
        try:
            identity = self._identity or await self._identify(node)
        except KafkaError:
            self._retry(batches)
            return
        topics: dict[str, list[tuple[int, bytes]]] = {}
        going: dict[TopicPartition, _Outgoing] = {}
        for batch in batches:
            if self._pack(batch, identity):
                topics.setdefault(batch.at.topic, []).append((batch.at.partition, batch.data))
                going[batch.at] = batch
        if not going:
            return
        request = ProduceRequest(None, _ACKS_ALL, _REPLICATION_TIMEOUT_MS, list(topics.items()))
        before = {at: batch.sent for at, batch in going.items()}
        for batch in going.values():
            batch.sent = True
        try:
            response = await self._client.send(node, request, self._lane)
        except kafka_errors.NodeNotReadyError:  # nothing went out
            for at, batch in going.items():
                batch.sent = before[at]
            self._retry(list(going.values()))
            return
        except KafkaError:
            self._retry(list(going.values()))
            return
        for topic, partitions in response.topics:
            for partition, error, offset, timestamp_ms, *_ in partitions:
                at = TopicPartition(topic, partition)
                batch = going.pop(at, None)
                if batch is None:
                    continue
                if error and not error_kafka.is_uncertain(error):
                    batch.sent = before[at]
                self._answered(batch, error, offset, timestamp_ms)
        self._retry(list(going.values()))

    def _pack(self, batch: _Outgoing, identity: _Identity) -> bool:
        """Give the batch its place in the sequence, once. False: it cannot be encoded and is refused."""
        if batch.identity is not None and (batch.sent or batch.identity is identity):
            return True
        sequence = identity.next_sequence.get(batch.at, 0) if self._idempotent else -1
        try:
            batch.data = packed(
                batch.records,
                identity.producer_id,
                identity.epoch,
                sequence,
                timestamp_ms=batch.timestamp_ms,
                size=batch.size,
            )
        except (UnicodeError, TypeError) as error:
            message = f"A record for {batch.at} cannot be encoded: {error}."
            self._settle(batch, AppendRefused(message, do="Give headers names that are text."))
            return False
        batch.identity = identity
        batch.sequence = sequence
        return True

    def _answered(self, batch: _Outgoing, error: int, offset: int, timestamp_ms: int) -> None:
        if error == 0:
            if self._idempotent and batch.identity is not None:
                following = batch.sequence + len(batch.records)
                batch.identity.next_sequence[batch.at] = following & _LARGEST_INT
            if timestamp_ms == -1:
                timestamp_ms = batch.timestamp_ms
            else:
                self._stamps.seen(timestamp_ms, batch.timestamp_ms)
            appended = Appended(offset, timestamp_ms)
            self._tell_appended(batch.at, appended, batch.records)
            self._settle(batch, appended)
        elif batch.sent and not error_kafka.is_retriable(error):
            self._fail(batch, error_kafka.words(error))
        elif error_kafka.is_refusal(error):
            self._limits.pop(batch.at.topic, None)  # it may have been lowered
            self._settle(
                batch,
                AppendForbidden(
                    f"The broker does not let us write to {batch.at.topic}.",
                    why=error_kafka.words(error),
                    do=f"Grant WRITE on {batch.at.topic}; `headrace doctor` says what else is missing.",
                )
                if error_kafka.is_forbidden(error)
                else AppendRefused(
                    f"The broker refused an append to {batch.at}: {error_kafka.words(error)}",
                    do="See the topic's settings.",
                ),
            )
        elif error == error_kafka.UNKNOWN_TOPIC and not batch.sent and self._is_gone(batch):
            self._limits.pop(batch.at.topic, None)
            do = "Make the topic again; if it is the run log, restore it from a copy."
            self._settle(batch, TopicMissing(f"{batch.at} does not exist any more.", do=do))
        elif error_kafka.is_retriable(error):
            self._retry([batch])
        else:
            self._fail(batch, error_kafka.words(error))

    def _is_gone(self, batch: _Outgoing) -> bool:
        now = self._loop.time()
        batch.missing_since = batch.missing_since or now
        return now - batch.missing_since > _MISSING_S

    def _retry(self, batches: list[_Outgoing]) -> None:
        if batches:
            self._client.refresh_soon()
            for batch in batches:
                self._again(batch)

    async def _identify(self, node: int) -> _Identity:
        async with self._identifying:
            if self._identity is None:
                if self._idempotent:
                    response = await self._client.send(node, InitProducerIdRequest(None, _LARGEST_INT), self._lane)  # type: ignore[arg-type] - None is allowed
                    if response.error_code:
                        raise kafka_errors.for_code(response.error_code)
                    self._identity = _Identity(response.producer_id, response.producer_epoch)
                else:
                    self._identity = _Identity(-1, -1)
            return self._identity


def _cuts(sizes: Sequence[int], room: int) -> list[tuple[int, int, int]]:
    """(begin, end, bytes) of successive batches of at most `room` bytes; a larger record is alone in its batch."""
    cuts: list[tuple[int, int, int]] = []
    begin = filled = 0
    for index, size in enumerate(sizes):
        if filled and filled + size > room:
            cuts.append((begin, index, filled))
            begin, filled = index, 0
        filled += size
    cuts.append((begin, len(sizes), filled))
    return cuts
