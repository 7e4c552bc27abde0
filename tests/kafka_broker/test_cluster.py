"""Three nodes: what is promised to the tests that kill one of them."""

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.kafka_broker.cluster import KafkaCluster


async def leader_of(admin: AIOKafkaAdminClient, topic: str) -> int:
    """Of partition 0. The node that is asked may not have heard of the topic yet."""
    with anyio.fail_after(30):
        while True:
            [described] = await admin.describe_topics([topic])
            if described["partitions"]:
                return described["partitions"][0]["leader"]
            await anyio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("kafka_available")
async def test_what_two_of_three_acknowledged_outlives_the_leader() -> None:
    async with KafkaCluster() as cluster:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=3)])
        await cluster.in_sync(["kept"])
        leader = await leader_of(admin, "kept")
        await admin.close()
        async with AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, acks="all", enable_idempotence=True
        ) as producer:
            await producer.send_and_wait("kept", b"before", partition=0)
            cluster.nodes[leader - 1].kill()
            await producer.send_and_wait("kept", b"after", partition=0)
        await cluster.start()
        await cluster.in_sync(["kept"])
        async with AIOKafkaConsumer(
            bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as reader:
            reader.assign([TopicPartition("kept", 0)])
            assert [(await reader.getone()).value, (await reader.getone()).value] == [b"before", b"after"]
