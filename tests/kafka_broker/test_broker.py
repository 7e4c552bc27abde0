"""The helper itself: what it promises to the tests that stand on it."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.kafka_broker.broker import BrokerFailed, KafkaBroker, free_port
from tests.service.end_to_end.waiting import eventually

ROOT = Path(__file__).parents[2]
OwnKafka = Callable[..., Awaitable[KafkaBroker]]


async def test_what_was_acknowledged_is_there_after_kill_9_on_the_same_address(own_kafka: OwnKafka) -> None:
    broker = await own_kafka()
    address = broker.bootstrap_servers
    await create_topic(broker, "kept")
    async with AIOKafkaProducer(bootstrap_servers=address, acks="all") as producer:
        sent = await producer.send_and_wait("kept", b"value", partition=0)

    broker.kill()
    assert broker.pid == 0
    await broker.start()

    assert broker.bootstrap_servers == address
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="none")
    async with consumer:
        consumer.assign([TopicPartition("kept", 0)])
        consumer.seek(TopicPartition("kept", 0), sent.offset)
        record = await consumer.getone()
    assert record.value == b"value"


async def test_a_controlled_restart_keeps_data_and_address(own_kafka: OwnKafka) -> None:
    broker = await own_kafka()
    before = (broker.bootstrap_servers, broker.pid)
    await create_topic(broker, "stays")
    await broker.restart()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        assert "stays" in await admin.list_topics()
    finally:
        await admin.close()
    assert broker.bootstrap_servers == before[0]
    assert broker.pid != before[1]


@pytest.mark.usefixtures("kafka_available")
async def test_a_port_of_another_process_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        broker = KafkaBroker(port=other.getsockname()[1], data=tmp_path)
        with pytest.raises(BrokerFailed, match="Another process listens on"):
            await broker.start()
    assert broker.pid == 0


async def test_of_two_that_start_on_one_port_one_says_that_it_did_not(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """Both found it free. The other one answers there; that makes this one no more ready."""
    port = free_port()
    folders = [tmp_path / "one", tmp_path / "two"]
    ends = await asyncio.gather(*(own_kafka(port=port, data=data) for data in folders), return_exceptions=True)
    assert sorted(isinstance(end, BrokerFailed) for end in ends) == [False, True]


@pytest.mark.usefixtures("kafka_available")
def test_kill_9_of_the_starter_ends_the_broker(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.kafka_broker", "--port", "0", "--data", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    broker = psutil.Process(int(starter.stdout.readline().split("pid ")[1].split(")")[0]))
    starter.kill()
    starter.wait()
    starter.stdout.close()
    broker.wait(timeout=60)
    assert not broker.is_running()


async def create_topic(broker: KafkaBroker, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_the_shared_broker_serves_asynchronous_tests(kafka: KafkaBroker) -> None:
    await create_topic(kafka, "shared-by-all")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()

    async def listed() -> bool:
        return "shared-by-all" in await admin.list_topics()

    try:
        await eventually(listed, "a topic that was made: its maker is answered before the broker hears of it")
    finally:
        await admin.close()


def test_a_free_port_is_given_once() -> None:
    """Ports are listened on later: two brokers that are being set up must not get the same."""
    given = [free_port() for _ in range(500)]
    assert len(set(given)) == len(given)
