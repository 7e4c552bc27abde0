"""`KafkaCluster`: three Kafka nodes with replication 3 and `min.insync.replicas` 2, each to be killed and restarted by itself."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.kafka_broker.broker import BrokerFailed, KafkaBroker, Quorum, free_port
from tests.kafka_broker.identity import new_id

NODES: Final = 3
IN_SYNC_TIMEOUT_S: Final = 90  # a node is back in 3 s and in sync some seconds later; a loaded machine takes its time


class KafkaCluster:
    """`async with KafkaCluster() as cluster:` starts all nodes; `cluster.nodes[0].kill()` and `.start()` move one."""

    def __init__(self, *, properties: Mapping[str, str] | None = None, heap_mb: int = 320) -> None:
        voters = tuple(f"{number}@127.0.0.1:{free_port()}" for number in range(1, NODES + 1))
        cluster_id = new_id()
        replicated = {
            "default.replication.factor": "3",
            "min.insync.replicas": "2",
            "offsets.topic.replication.factor": "3",
            "unclean.leader.election.enable": "false",
            "replica.lag.time.max.ms": "4000",  # a dead follower leaves the in-sync set sooner than after 30 s
            "controller.quorum.election.timeout.ms": "500",
            "controller.quorum.fetch.timeout.ms": "1000",
        }
        self.nodes: Sequence[KafkaBroker] = [
            KafkaBroker(
                properties={**replicated, **(properties or {})},
                heap_mb=heap_mb,
                quorum=Quorum(number, voters, cluster_id),
            )
            for number in range(1, NODES + 1)
        ]

    @property
    def bootstrap_servers(self) -> str:
        """All nodes, also those that are away."""
        return ",".join(node.bootstrap_servers for node in self.nodes)

    async def start(self) -> None:
        """All that do not run, at once: none is ready before there are two."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                if not node.pid:
                    group.create_task(node.start())

    async def in_sync(self, topics: Iterable[str]) -> None:
        """Wait until every partition of these topics has all its replicas in sync. Raises BrokerFailed after a while."""
        wanted = list(topics)
        ends = time.monotonic() + IN_SYNC_TIMEOUT_S
        lacking: list[str] = ["nothing was said"]
        while lacking:
            if time.monotonic() > ends:
                raise BrokerFailed(f"Not in sync within {IN_SYNC_TIMEOUT_S} s: {lacking[:5]}")
            try:
                lacking = await self._lacking(wanted)
            except (KafkaError, OSError):
                continue
            if lacking:
                await asyncio.sleep(0.1)  # between two looks

    async def _lacking(self, topics: list[str]) -> list[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=5000)
        try:
            await admin.start()
            described: list[dict[str, Any]] = await admin.describe_topics(topics)
        finally:
            await admin.close()
        unknown = [f"{topic['topic']} is not known yet" for topic in described if not topic["partitions"]]
        return unknown + [
            f"{topic['topic']}/{partition['partition']} has {partition['isr']} of {partition['replicas']}"
            for topic in described
            for partition in topic["partitions"]
            if len(partition["isr"]) < len(partition["replicas"]) or partition["leader"] < 0
        ]

    async def stop(self) -> None:
        """In order, all at once."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(node.stop())

    def kill(self) -> None:
        """kill -9 all that run."""
        for node in self.nodes:
            node.kill()

    def remove(self) -> None:
        """Delete the data."""
        for node in self.nodes:
            node.remove()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.kill()
            self.remove()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # nobody wants the data
        self.remove()
