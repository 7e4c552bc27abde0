"""The Kafka log: outages, refusals, odd batches, transactions. What every log does is in tests/contract."""

import asyncio
import functools
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c

from headrace.topics import admin_kafka, fetcher_kafka
from headrace.topics.client_kafka import KafkaClient, Lane
from headrace.topics.codec_kafka import packed
from headrace.topics.log import (
    AppendFailed,
    AppendRefused,
    Batch,
    Fatal,
    LogCorrupt,
    LogRecord,
    LogUnavailable,
    NewRecord,
    TopicMissing,
    TopicPartition,
    Unreadable,
)
from headrace.topics.log_kafka import KafkaClientSettings, KafkaLog
from headrace.topics.reader_kafka import TOO_LARGE, UNREADABLE
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker

OwnKafka = Callable[..., Awaitable[KafkaBroker]]
PATIENCE_S = 60.0
_numbers = itertools.count()


def log_of(broker: KafkaBroker, **settings: object) -> KafkaLog:
    return KafkaLog(KafkaClientSettings(bootstrap_servers=(broker.bootstrap_servers,), **settings))  # type: ignore[arg-type]


async def topic_on(log: KafkaLog, partitions: int = 1, max_message_bytes: int | None = None) -> str:
    name = f"kafka.{next(_numbers)}"
    await log.create([TopicSpec(name=name, partitions=partitions, max_message_bytes=max_message_bytes)])
    return name


async def take(batches: AsyncIterator[Batch], count: int) -> list[LogRecord | Unreadable]:
    found: list[LogRecord | Unreadable] = []
    with anyio.fail_after(PATIENCE_S):
        while len(found) < count:
            found += (await anext(batches)).records
    return found


def values(found: list[LogRecord | Unreadable]) -> list[bytes | None]:
    return [record.value if isinstance(record, LogRecord) else b"?" for record in found]


async def surely(log: KafkaLog, at: TopicPartition, value: bytes) -> None:
    """Append it, by a log of little patience too: a broker that has just started takes its time."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                await log.append(at, [NewRecord(value)])
            except (AppendFailed, LogUnavailable):
                continue
            return


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_reader_and_appender_go_on_after_kill_9_of_the_broker(own_kafka: OwnKafka) -> None:
    broker = await own_kafka()
    async with log_of(broker) as log:
        at = TopicPartition(await topic_on(log), 0)
        found: list[bytes | None] = []
        killed, go_on = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            for number in range(400):
                await log.append(at, [NewRecord(str(number).encode())])
                if number == 150:
                    killed.set()
                if number == 350:
                    await go_on.wait()

        async def read() -> None:
            async with log.read(at, 0) as batches:
                while len(found) < 400:
                    found.extend(values(await take(batches, 1)))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            tasks.create_task(read())
            await killed.wait()
            broker.kill()
            with anyio.fail_after(PATIENCE_S):
                while log.reachable:
                    await asyncio.sleep(0.01)
            await broker.start()
            go_on.set()
        assert found == [str(number).encode() for number in range(400)]  # each once, in order, none missing
        assert log.reachable


async def test_a_broker_that_hangs_fails_the_append_and_the_next_one_goes_on(own_kafka: OwnKafka) -> None:
    broker = await own_kafka()
    async with log_of(broker) as log:
        topic = await topic_on(log, partitions=2)
        at, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await log.append(at, [NewRecord(b"before")])
    async with log_of(broker, append_timeout_ms=1000, extra={"request.timeout.ms": 700}) as log:
        await surely(log, at, b"uncertain")
        await surely(log, other, b"uncertain")
        broker.pause()
        with pytest.raises(AppendFailed), anyio.fail_after(PATIENCE_S):  # noqa: PT012
            while True:  # the process stops at some moment of these
                await log.append(at, [NewRecord(b"uncertain")])
        with anyio.fail_after(PATIENCE_S):
            while log.reachable:  # the append's patience may end in the same turn of the loop as the request's
                await asyncio.sleep(0)
        broker.resume()
        for number in range(5):
            await surely(log, at, f"after {number}".encode())
            await surely(log, other, f"after {number}".encode())
        async with log.read(at, 0) as batches:
            found = values(await take(batches, (await log.offsets([at]))[at].end))
        assert found[0] == b"before"
        assert set(found) - {b"uncertain"} == {b"before", *(f"after {number}".encode() for number in range(5))}


def test_a_connection_that_was_just_closed_is_an_outage_under_uvloop_too(kafka: KafkaBroker) -> None:
    """Its transports raise RuntimeError where asyncio's say nothing: that is no bug, which would end every partition of the process."""

    async def run() -> None:
        client = KafkaClient(KafkaClientSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
        await client.start()
        try:
            node = client.any_node()
            ask = functools.partial(client.send, node, MetadataRequest([], allow_auto_topic_creation=False), Lane.ADMIN)
            await ask()
            gone = client._client._conns[node, Lane.ADMIN]._writer
            gone.transport.abort()
            with pytest.raises(KafkaError):
                await ask()
            await ask()
            connection = client._client._conns[node, Lane.ADMIN]
            connection._writer.close()
            connection._writer = gone  # as it is until the end has been read
            with pytest.raises(KafkaError):
                await ask()
            assert await ask()
        finally:
            await client.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def impatient(broker: KafkaBroker) -> KafkaClient:
    """A client that gives up an answer after 300 ms, and has had one: a broker that has just started takes longer."""
    settings = KafkaClientSettings(bootstrap_servers=(broker.bootstrap_servers,), extra={"request.timeout.ms": 300})
    with anyio.fail_after(PATIENCE_S):
        while True:
            client = KafkaClient(settings)
            try:
                await client.start()
                await client.send(client.any_node(), MetadataRequest([], allow_auto_topic_creation=False), Lane.ADMIN)
            except (KafkaError, LogUnavailable):
                await client.stop()
            else:
                return client


async def test_requests_that_time_out_together_all_say_so(own_kafka: OwnKafka) -> None:
    """The next try of one has taken the connection away when aiokafka looks for it, to close it for another."""
    broker = await own_kafka()
    client = await impatient(broker)
    try:
        node = client.any_node()
        ask = functools.partial(client.send, node, MetadataRequest([], allow_auto_topic_creation=False), Lane.ADMIN)
        broker.pause()

        async def insist() -> None:
            for _ in range(2):
                with pytest.raises(KafkaError):
                    await ask()

        with anyio.fail_after(PATIENCE_S):
            async with asyncio.TaskGroup() as together:
                for _ in range(8):
                    together.create_task(insist())
    finally:
        broker.resume()
        await client.stop()


async def test_whoever_comes_after_the_end_of_the_tasks_hears_of_it(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one of them ends them all. An append that waited for ever would hold the stop of the process."""

    async def broken(_: fetcher_kafka.Fetcher) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(fetcher_kafka.Fetcher, "run", broken)
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        with pytest.raises(Fatal, match="ZeroDivisionError"), anyio.fail_after(PATIENCE_S):
            await log.append(at, [NewRecord(b"a")])
        with pytest.raises(Fatal, match="ZeroDivisionError"), anyio.fail_after(PATIENCE_S):
            async with log.read(at, 0) as batches:
                await take(batches, 1)


async def test_a_broker_that_is_gone_is_reported_and_nothing_was_queued(
    own_kafka: OwnKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await own_kafka()
    async with log_of(broker, append_timeout_ms=500) as log:
        at = TopicPartition(await topic_on(log), 0)
        await surely(log, at, b"0")
        monkeypatch.setattr(admin_kafka, "_TIMEOUT_S", 1.0)
        broker.kill()
        with anyio.fail_after(PATIENCE_S):
            while log.reachable:
                with pytest.raises((LogUnavailable, AppendFailed)):
                    await log.append(at, [NewRecord(b"lost")])
        with pytest.raises(LogUnavailable):
            await log.append(at, [NewRecord(b"lost")])
        with pytest.raises(LogUnavailable):
            await log.offsets([at])


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["append", "publish"])
async def test_a_refusal_of_the_broker_does_not_wedge_the_partition(kafka: KafkaBroker, by: str) -> None:
    async with log_of(kafka) as log:
        topic = await topic_on(log, partitions=2)
        at, neighbour = TopicPartition(topic, 0), TopicPartition(topic, 1)
        send = log.append if by == "append" else log.publish
        await send(at, [NewRecord(b"0")])
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2000"})])
        await admin.close()
        with anyio.fail_after(PATIENCE_S):  # until the broker has heard of it; our own check knows the old limit
            while True:
                try:
                    await send(at, [NewRecord(noise(5000))])
                except AppendRefused:
                    break
        for number in range(3):
            with pytest.raises(AppendRefused):
                await send(at, [NewRecord(noise(5000))])
            await send(at, [NewRecord(f"after {number}".encode())])
            await send(neighbour, [NewRecord(f"after {number}".encode())])
        end = (await log.offsets([at]))[at].end
        async with log.read(at, 0) as batches:
            assert values(await take(batches, end))[-3:] == [b"after 0", b"after 1", b"after 2"]


async def test_no_question_makes_a_topic(own_kafka: OwnKafka) -> None:
    broker = await own_kafka(properties={"auto.create.topics.enable": "true"})
    async with log_of(broker) as log:
        there = await topic_on(log)
        at = TopicPartition("made.by.nobody", 0)
        questions: list[Awaitable[object]] = [
            log.append(at, [NewRecord(b"x")]),
            log.publish(at, [NewRecord(b"x")]),
            log.partitions(at.topic),
            log.offsets([at]),
            log.trim(at, 0),
            log.committed("group", [at]),
        ]
        for question in questions:
            with pytest.raises(TopicMissing):
                await question
        with pytest.raises(TopicMissing):
            async with log.read(at, 0):
                pass
        await log.append(TopicPartition(there, 0), [NewRecord(b"x")])
        assert await log.describe([at.topic]) == {}
        assert list(await log.topics()) == [there]


async def test_a_topic_that_is_deleted_ends_its_readers(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with log_of(kafka) as log:
        at, other = TopicPartition(await topic_on(log), 0), TopicPartition(await topic_on(log), 0)
        await log.append(at, [NewRecord(b"x")])
        async with log.read(at, 0) as batches, log.read(other, 0) as others:
            await take(batches, 1)
            monkeypatch.setattr(fetcher_kafka, "_REFUSED_S", 0.2)
            admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
            await admin.start()
            await admin.delete_topics([at.topic])
            await admin.close()
            with pytest.raises(TopicMissing), anyio.fail_after(PATIENCE_S):
                await anext(batches)
            await log.append(other, [NewRecord(b"y")])
            assert values(await take(others, 1)) == [b"y"]


# --- odd batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_compressed_bomb_is_one_unreadable_between_good_neighbours(kafka: KafkaBroker, codec: str) -> None:
    async with log_of(kafka, decompressed_batch_bytes_max=2_000_000) as log:
        at = TopicPartition(await topic_on(log), 0)
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers,
            compression_type=codec,
            max_batch_size=30_000_000,
            max_request_size=30_000_000,
        )
        async with producer:
            for values_of_batch in ([b"a", b"b"], [bytes(3_000_000)] * 3, [b"c" * 1_500_000, b"d"]):
                batch = producer.create_batch()
                for value in values_of_batch:
                    assert batch.append(key=None, value=value, timestamp=None)
                batch.close()
                await (await producer.send_batch(batch, at.topic, partition=0))
        async with log.read(at, 0, isolation="committed") as batches:
            found = await take(batches, 5)
        first, second, bomb, large, last = found
        assert isinstance(bomb, Unreadable)
        assert (bomb.offset, bomb.last_offset, bomb.code) == (2, 4, TOO_LARGE)
        assert values([first, second, last]) == [b"a", b"b", b"d"]
        assert isinstance(large, LogRecord)
        assert large.value == b"c" * 1_500_000
        async with log.read(at, 3, isolation="committed") as batches:  # from inside of it
            bomb = (await take(batches, 1))[0]
            assert isinstance(bomb, Unreadable)
            assert (bomb.offset, bomb.last_offset) == (3, 4)
        async with log.read(at, 0) as batches:  # the run log has no such batch: the partition stops
            with pytest.raises(LogCorrupt):
                await take(batches, 5)


async def test_damage_on_the_brokers_disk_is_never_skipped_silently(own_kafka: OwnKafka) -> None:
    broker = await own_kafka()
    async with log_of(broker) as log:
        at = TopicPartition(await topic_on(log), 0)
        for value in (b"first", b"second", b"third"):
            await log.append(at, [NewRecord(value)])
    await broker.stop()
    (segment,) = broker._data.glob(f"**/{at.topic}-0/00000000000000000000.log")
    segment.write_bytes(segment.read_bytes().replace(b"second", b"sEcond"))
    await broker.start()
    async with log_of(broker) as log:
        async with log.read(at, 0, isolation="committed") as batches:
            first, damaged, third = await take(batches, 3)
        assert values([first, third]) == [b"first", b"third"]
        assert isinstance(damaged, Unreadable)
        assert (damaged.offset, damaged.last_offset, damaged.code) == (1, 1, UNREADABLE)
        async with log.read(at, 0) as batches:
            with pytest.raises(LogCorrupt):
                await take(batches, 3)


async def test_large_batches_pass_however_many_partitions_are_read(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        topic = await topic_on(log, partitions=40, max_message_bytes=3_000_000)
        at = [TopicPartition(topic, number) for number in range(40)]
        for one in at:
            await log.append(one, [NewRecord(noise(2_000_000))])
            await log.append(one, [NewRecord(b"after")])

        async def check(one: TopicPartition) -> None:
            async with log.read(one, 0) as batches:
                found = values(await take(batches, 2))
            assert [len(value or b"") for value in found] == [2_000_000, 5]

        async with asyncio.TaskGroup() as tasks:
            for one in at:
                tasks.create_task(check(one))


async def test_more_than_a_batch_may_hold_goes_as_several(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log, max_message_bytes=10_000), 0)
        appended = await log.append(at, [NewRecord(noise(3000 + number)) for number in range(20)])
        assert appended.base_offset == 0
        async with log.read(at, 0) as batches:
            found = values(await take(batches, 20))
        assert [len(value or b"") for value in found] == [3000 + number for number in range(20)]


async def test_a_batch_with_an_odd_header_name_keeps_its_records(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        await log.append(at, [NewRecord(b"before")])
        data = bytearray(packed([NewRecord(b"odd", headers=(("name", b"1"),))], -1, -1, -1, timestamp_ms=5))
        data[:] = data.replace(b"name", b"n\xffme")
        data[17:21] = calc_crc32c(data[21:]).to_bytes(4, "big")
        client = log._live.client
        request = ProduceRequest(None, -1, 1000, [(at.topic, [(0, bytes(data))])])
        response = await client.send(client.leader(at) or 0, request, Lane.PUBLISH)
        assert response.topics[0][1][0][1] == 0
        await log.append(at, [NewRecord(b"after")])
        async with log.read(at, 0) as batches:
            found = await take(batches, 3)
        assert values(found) == [b"before", b"odd", b"after"]
        assert isinstance(found[1], LogRecord)
        assert found[1].headers == (("n\\xffme", b"1"),)


async def test_a_read_may_start_deep_inside_a_batch_of_many_records(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        await log.append(at, [NewRecord(str(number).encode()) for number in range(20_000)])
        await log.append(at, [NewRecord(b"after")])
        for start in (0, 4096, 9_999, 19_999):
            async with log.read(at, start) as batches:
                found = await take(batches, 20_001 - start)
            assert values(found) == [*(str(number).encode() for number in range(start, 20_000)), b"after"]


async def test_a_cancelled_read_loses_nothing(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        for number in range(6):
            await log.append(at, [NewRecord(bytes([number]) * 1_000_000)] * 3 if number % 2 else [NewRecord(b"small")])
        found: list[LogRecord | Unreadable] = []
        async with log.read(at, 0) as batches:
            for turns in itertools.cycle(range(7)):  # cancelled at ever other moments; every seventh time not at all

                async def read() -> None:
                    found.extend((await anext(batches)).records)

                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(read())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if turns < 6:
                        reading.cancel()
                if len(found) >= 12:
                    break
        assert [record.offset for record in found] == list(range(12))


# --- transactions -----------------------------------------------------------------------------------------------------


async def test_aborted_transactions_are_seen_by_nobody_who_reads_committed(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{at.topic}.producer")
        async with producer:
            for number in range(4):
                await producer.begin_transaction()
                await producer.send_and_wait(at.topic, f"{number}".encode(), partition=0)
                await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
            await log.publish(at, [NewRecord(b"plain")])
            async with log.read(at, 0, isolation="committed") as batches:
                found = await take(batches, 3)
                assert values(found) == [b"0", b"2", b"plain"]
                await producer.begin_transaction()
                await producer.send_and_wait(at.topic, b"open", partition=0)
                await log.publish(at, [NewRecord(b"behind it")])
                async with log.read(at, 0) as everything:
                    assert values(await take(everything, 7)) == [
                        b"0",
                        b"1",
                        b"2",
                        b"3",
                        b"plain",
                        b"open",
                        b"behind it",
                    ]
                async with asyncio.TaskGroup() as tasks:
                    waiting = tasks.create_task(take(batches, 2))
                    await producer.commit_transaction()
                assert values(waiting.result()) == [b"open", b"behind it"]


async def test_the_marker_of_a_transaction_is_read_past(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{at.topic}.producer")
        async with producer, producer.transaction():
            await producer.send_and_wait(at.topic, b"paid", partition=0)
        async with log.read(at, 0, isolation="committed") as batches:
            batch = await anext(batches)
        assert (batch.records[-1].offset, batch.next_offset, (await log.offsets([at]))[at].end) == (0, 2, 2)


async def test_what_an_aborted_transaction_left_at_the_end_is_read_past(kafka: KafkaBroker) -> None:
    async with log_of(kafka) as log:
        at = TopicPartition(await topic_on(log), 0)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{at.topic}.producer")
        async with producer:
            async with producer.transaction():
                await producer.send_and_wait(at.topic, b"paid", partition=0)
            await producer.begin_transaction()
            await producer.send_and_wait(at.topic, b"never", partition=0)
            await producer.abort_transaction()
        with anyio.fail_after(PATIENCE_S):
            async with log.read(at, 0, isolation="committed") as batches:
                batch = await anext(batches)
                assert values(list(batch.records)) == [b"paid"]
                while batch.goes_on_at < 4:  # paid, its mark, never, its mark
                    batch = await anext(batches)
                    assert not batch.records
            async with log.read(at, 2, isolation="committed") as batches:
                batch = await anext(batches)
                assert (list(batch.records), batch.goes_on_at, batch.end_offset) == ([], 4, 4)
                await log.publish(at, [NewRecord(b"behind it")])
                assert values(await take(batches, 1)) == [b"behind it"]


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_it_runs_on_uvloop(kafka: KafkaBroker) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> list[bytes | None]:
        async with log_of(kafka) as log:
            at = TopicPartition(await topic_on(log), 0)
            async with log.read(at, 0) as batches:
                for number in range(100):
                    await log.append(at, [NewRecord(str(number).encode())])
                return values(await take(batches, 100))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == [str(number).encode() for number in range(100)]
