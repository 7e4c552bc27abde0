"""What records and what loads a session, against real brokers: it sees everything, and stands still while the broker is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError

from tests.chaos.kafka_door import KafkaDoor
from tests.chaos.kafka_source import KafkaSource
from tests.chaos.recorder import At, Record
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.waiting import eventually

_TOPIC = "chaos-source"
_AT = (_TOPIC, 0)
_HEADERS = (("ce_id", b"1"), ("ce_id", b"2"))


@pytest.fixture
async def closed() -> AsyncIterator[AsyncExitStack]:
    """Closes what the test made, however it ends."""
    async with AsyncExitStack() as stack:
        yield stack


@asynccontextmanager
async def _admin(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _made(servers: str) -> None:
    async with _admin(servers) as admin:
        await admin.create_topics([NewTopic(_TOPIC, 2, 1)])


async def _ends_at(source: KafkaSource, expected: dict[At, int]) -> bool:
    return await source.ends(list(expected)) == expected


async def _all(source: KafkaSource) -> list[Record]:
    return await source.some(_AT, 0, (await source.ends([_AT]))[_AT])


async def _all_by_the_patient(broker: KafkaBroker) -> list[Record]:
    """A broker that has just started takes its time."""
    source = KafkaSource(broker.bootstrap_servers, patience_s=60.0)
    try:
        return await _all(source)
    finally:
        await source.close()


async def test_everything_that_stands_there_is_read(kafka: KafkaBroker, closed: AsyncExitStack) -> None:
    servers = kafka.bootstrap_servers
    source = KafkaSource(servers)
    closed.push_async_callback(source.close)
    assert await source.partitions(_TOPIC) == 0
    await _made(servers)
    expected: list[bytes] = []
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=servers, compression_type=codec, linger_ms=50
        ) as producer:
            sent = [f"{codec}{number}".encode() * 50 for number in range(3)]
            acks = [await producer.send(_TOPIC, value, key=b"k", partition=0, headers=[*_HEADERS]) for value in sent]
            await asyncio.gather(*acks)
            expected += sent
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=servers, transactional_id="chaos-source") as producer:
        for _ in range(2):  # their markers take an offset each, and the last one is the last record of all
            await producer.begin_transaction()
            await producer.send_and_wait(_TOPIC, b"aborted", key=b"k", partition=0, headers=[*_HEADERS])
            await producer.abort_transaction()
            expected.append(b"aborted")
    assert await source.partitions(_TOPIC) == 2
    await eventually(  # the coordinator answers before the last marker is written
        lambda: _ends_at(source, {_AT: 19, (_TOPIC, 1): 0}), "both markers"
    )
    records = await _all(source)
    assert [each.value for each in records] == expected
    assert [each.offset for each in records] == [*range(16), 17]
    assert {(each.at, each.key, each.headers) for each in records} == {(_AT, b"k", _HEADERS)}
    assert (await source.some(_AT, 4, 5))[0].offset == 4  # from the middle of a batch
    async with aiokafka.AIOKafkaConsumer(
        bootstrap_servers=servers, group_id="chaos-source", enable_auto_commit=False
    ) as consumer:
        consumer.assign([aiokafka.TopicPartition(_TOPIC, 0)])
        await consumer.commit({aiokafka.TopicPartition(_TOPIC, 0): 7})
    assert await source.committed("chaos-source", [_AT, (_TOPIC, 1)]) == {_AT: 7}
    async with _admin(servers) as admin:
        await admin.delete_records({aiokafka.TopicPartition(_TOPIC, 0): RecordsToDelete(before_offset=5)})
    assert await source.begins([_AT]) == {_AT: 5}
    assert [each.offset for each in await _all(source)] == [*range(5, 16), 17]


async def test_a_broker_that_hangs_or_dies_leaves_nothing_running_and_is_found_again(
    own_kafka: Callable[..., Awaitable[KafkaBroker]], closed: AsyncExitStack
) -> None:
    broker = await own_kafka()
    await _made(broker.bootstrap_servers)
    before = asyncio.all_tasks()
    source = KafkaSource(broker.bootstrap_servers, request_s=0.5, patience_s=1.0)
    door = KafkaDoor(broker.bootstrap_servers, request_s=0.5, patience_s=60.0)
    closed.push_async_callback(source.close)
    closed.push_async_callback(door.close)
    await door.put(_TOPIC, 0, b"k", b"first", _HEADERS)
    assert [each.value for each in await _all_by_the_patient(broker)] == [b"first"]
    broker.pause()
    with pytest.raises(TimeoutError):
        await source.ends([_AT])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(door.put(_TOPIC, 0, b"k", b"second", ()))
        while door.wire.failures < 2:
            await asyncio.sleep(0.01)
        broker.resume()  # it has the first try before it still
    broker.kill()
    with pytest.raises((OSError, KafkaError)):
        await source.ends([_AT])
    assert asyncio.all_tasks() == before
    failures = door.wire.failures
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(door.put(_TOPIC, 0, b"k", b"third", ()))
        while door.wire.failures == failures:
            await asyncio.sleep(0.01)
        await broker.start()
    assert [each.value for each in await _all_by_the_patient(broker)] == [b"first", b"second", b"third"]
    await source.close()
    await door.close()
    assert asyncio.all_tasks() == before
